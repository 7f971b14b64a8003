"""The tools beside the mount: uploads of trees and files, copies, deletions, listings."""

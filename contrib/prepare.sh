# Sourced by demo and test: installs what is missing and makes the virtual environment.
# Needs: $root, the checkout. Sets: $venv.

base_packages="fuse3 libfuse3-dev pkg-config gcc libc6-dev python3-dev python3-venv"
venv=$root/.venv

say() {
    printf '%s\n' "$*" >&2
}

die() {
    say "$(basename "$0"): $*"
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo -- "$@"
    else
        die "root is needed for: $*; become root or install sudo"
    fi
}

# Packages of "$@" that are not installed.
missing_packages() {
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
            printf '%s ' "$package"
    done
}

install_packages() {
    [ $# -gt 0 ] || return 0
    if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
        say "This is not Debian or Ubuntu: what these packages hold must be there already: $*"
        return
    fi
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    say "Installing with apt-get: $missing"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o Dpkg::Use-Pty=0 $missing >/dev/null
}

# The interpreter that python3-dev and python3-venv of the distribution belong to.
choose_python() {
    for python in /usr/bin/python3 python3; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            return
        fi
    done
    die "Python 3.11 or newer is needed (Debian 12, Ubuntu 24.04 or newer have it)"
}

# prepare EXTRAS PACKAGE...: everything for the extras of pyproject.toml.
prepare() {
    extras=$1
    shift
    # shellcheck disable=SC2086
    install_packages $base_packages
    # Beside pip, which downloads and compiles meanwhile.
    install_packages "$@" &
    packages=$!
    choose_python
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        say "Making a virtual environment in $venv"
        "$python" -m venv --clear "$venv"
    fi
    # What was installed, for which interpreter, from which directory.
    stamp=$venv/.installed-$extras
    state=$({ "$venv/bin/python" -VV; echo "$root"; cat "$root/pyproject.toml"; } | cksum)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$state" ]; then
        say "Installing s3mount[$extras] into $venv (pyfuse3 is compiled; a minute or two)"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --root-user-action=ignore -e "$root[$extras]"
        printf '%s\n' "$state" >"$stamp"
    fi
    # pip compiles what it copies, not this checkout; every command would, where
    # PYTHONDONTWRITEBYTECODE is set: a sixth of a second each.
    "$venv/bin/python" -m compileall -q "$root/s3mount"
    wait "$packages"
}

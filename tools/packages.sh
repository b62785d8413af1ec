# Sourced by tools/quickstart and tools/test: the packages that a machine lacks, and how to get them.
# shellcheck shell=bash

# Prints the packages of the given groups of tools/packages that are not installed.
missing_packages() {
    local group name
    while read -r group name; do
        if [[ " $* " == *" $group "* ]] && ! is_installed "$name"; then
            printf '%s\n' "$name"
        fi
    done < <(grep -v '^#' "$(dirname "${BASH_SOURCE[0]}")/packages")
}

is_installed() {
    [[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

# Installs what the groups lack. Touches neither apt nor the network when nothing is missing.
install_missing_packages() {
    local -a missing=() as_root=()
    mapfile -t missing < <(missing_packages "$@")
    if ((${#missing[@]} == 0)); then
        return 0
    fi
    if ((EUID != 0)); then
        if ! command -v sudo >/dev/null; then
            echo "These packages are missing, and installing them needs root or sudo: ${missing[*]}" >&2
            return 1
        fi
        as_root=(sudo)
    fi
    echo "installing: ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# CANN, the run time of an Ascend NPU: finding it, entering its environment, the torch-npu for it.
# Sourced by launch.sh, which has ROOT, SYSROOT, say and die. Written for bash 3.2 and newer.
# shellcheck shell=bash

# The CANN that was chosen: its folder, its version, the set_env.sh to source. The pair for it.
CANN="" CANN_VERSION="" CANN_SCRIPT="" TORCH_NPU="" NPU_PYTHON=""
# shellcheck disable=SC2153
CANN_TABLE="$ROOT/instructblip/cann_versions.txt"
# What torch-npu runs fastest with (RECOMMENDED of instructblip/ascend.py); the user's own stay.
RECOMMENDED=(TASK_QUEUE_ENABLE=2 PYTORCH_NPU_ALLOC_CONF=expandable_segments:True CPU_AFFINITY_CONF=1)

npu_devices() { # prints the names of the NPUs that show under /dev
  local device
  for device in "$SYSROOT"/dev/davinci[0-9]*; do
    [ ! -e "$device" ] || printf ' %s' "${device##*/}"
  done
}

in_container() {
  [ -e "$SYSROOT/.dockerenv" ] || [ -e "$SYSROOT/run/.containerenv" ] || [ -n "${container:-}${KUBERNETES_SERVICE_HOST:-}" ]
}

cann_roots() { # prints the folders that CANN may be installed under
  local recorded
  recorded="$(sed -n 's/^[A-Za-z_]*Install_Path[A-Za-z_]*=//p' \
    "$SYSROOT/etc/Ascend/ascend_cann_install.info" 2>/dev/null | head -n 1)" || true
  [ -z "$recorded" ] || printf '%s\n' "$SYSROOT$recorded"
  printf '%s\n' "$SYSROOT/usr/local/Ascend" "$HOME/Ascend"
}

cann_scripts() { # prints the set_env.sh files of what is installed, the first choice first
  local root place file seen="|"
  while IFS= read -r root; do
    while IFS= read -r place; do
      file="$root/$place/set_env.sh"
      case "$seen" in *"|$file|"*) continue ;; esac
      seen="$seen$file|"
      # A link that leads nowhere is printed as well, so that it is named as broken.
      if [ -e "$file" ] || [ -L "$root/$place" ]; then printf '%s\n' "$file"; fi
    done < <(printf 'cann\n' && newest_first "$root" && printf '%s\n' ascend-toolkit nnae nnrt)
  done < <(cann_roots)
}

newest_first() { # prints the names cann-* under folder $1, the newest version first
  local folder name best number most left=()
  for folder in "$1"/cann-*; do
    [ ! -d "$folder" ] || left+=("${folder##*/}")
  done
  while [ ${#left[@]} -gt 0 ]; do
    best="" most=-1
    for name in "${left[@]}"; do
      number="$(cann_number "${name#cann-}" || echo 0)"
      if [ "$number" -gt "$most" ]; then best="$name" most="$number"; fi
    done
    printf '%s\n' "$best"
    local rest=()
    for name in "${left[@]}"; do
      [ "$name" = "$best" ] || rest+=("$name")
    done
    left=(${rest[@]+"${rest[@]}"})
  done
}

exports_of() { # SCRIPT ARGUMENTS: prints the commands that set what the script would export
  # In a shell of its own: Ascend's scripts read unset variables, return and define what they like.
  (
    script="$1" launch_before="$(declare -x)"
    shift
    set +eu +o pipefail
    # shellcheck disable=SC1090
    source "$script" "$@" >/dev/null 2>&1
    exports_since "$launch_before" "${RECOMMENDED[@]%%=*}"
  )
}

exports_since() { # LIST NAME...: prints commands for the exported variables that are not in an older `declare -x`
  local name before="$1" # NAME...: left out
  shift
  for name in $(compgen -e); do
    case " _ PWD OLDPWD SHLVL $* " in *" $name "*) continue ;; esac
    case "$before" in
      *"$(declare -p "$name")"*) ;;
      *) printf 'export %s=%q\n' "$name" "${!name-}" ;;
    esac
  done
}

probe_cann() { # prints the folder that the set_env.sh $1 leads to; fails when it is broken
  (
    unset ASCEND_HOME_PATH
    eval "$(exports_of "$1")"
    [ -d "${ASCEND_HOME_PATH:-}" ] && printf '%s\n' "$ASCEND_HOME_PATH"
  )
}

cann_version() { # prints the version of the CANN in folder $1, if it can be read
  local file version=""
  for file in "$1"/*-linux/ascend_toolkit_install.info "$1"/ascend_toolkit_install.info \
    "$1"/*-linux/ascend_*_install.info "$1"/ascend_*_install.info; do
    if [ -z "$version" ] && [ -f "$file" ]; then
      version="$(sed -n 's/^version=[[:space:]]*\([^[:space:]]*\).*/\1/p' "$file" | head -n 1)"
    fi
  done
  file="$(cd -P "$1" && pwd)" # the folder itself is called cann-9.1.0 or 8.3.RC1
  if [ -z "$version" ] && [[ "$file" =~ [-/]([0-9]+\.[0-9]+[.A-Za-z0-9]*)$ ]]; then
    version="${BASH_REMATCH[1]}"
  fi
  printf '%s\n' "$version"
}

cann_number() { # 8.3.RC1 becomes 8003, torch's 2.7.1 becomes 2007; fails where there is no version
  [[ "$1" =~ ^([0-9]+)\.([0-9]+) ]] || return 1
  printf '%s\n' $((BASH_REMATCH[1] * 1000 + BASH_REMATCH[2]))
}

cann_row() { # prints the table's line for CANN $1: the newest that is not newer; fails for one too old
  local want version rest
  want="$(cann_number "$1")" || return 1
  while read -r version rest; do
    case "$version" in '' | '#'*) continue ;; esac
    if [ "$(cann_number "$version")" -le "$want" ]; then
      printf '%s %s\n' "$version" "$rest"
      return 0
    fi
  done <"$CANN_TABLE"
  return 1
}

oldest_cann() { awk '$1 !~ /^#/ && NF { last = $1 } END { print last }' "$CANN_TABLE"; }
newest_cann() { awk '$1 !~ /^#/ && NF { print $1; exit }' "$CANN_TABLE"; }

choose_cann() { # sets CANN, CANN_VERSION and CANN_SCRIPT; fails when none is installed
  local file home version
  if [ -d "${ASCEND_HOME_PATH:-}" ]; then # the user's choice, whatever else is here
    CANN="$ASCEND_HOME_PATH"
    CANN_VERSION="$(cann_version "$CANN")"
    case ":${LD_LIBRARY_PATH:-}" in *:"$CANN"/*) return 0 ;; esac # its set_env.sh has been sourced
    for file in "$CANN/set_env.sh" "$CANN/../set_env.sh"; do
      if [ -z "$CANN_SCRIPT" ] && [ -f "$file" ]; then CANN_SCRIPT="$file"; fi
    done
    if [ -z "$CANN_SCRIPT" ]; then
      say "$CANN has no set_env.sh, and LD_LIBRARY_PATH does not lead into it: its libraries may not be found."
    elif [ -z "$CANN_VERSION" ] && home="$(probe_cann "$CANN_SCRIPT")"; then # the root was named
      CANN_VERSION="$(cann_version "$home")"
    fi
    return 0
  fi
  [ -z "${ASCEND_HOME_PATH:-}" ] ||
    say "ASCEND_HOME_PATH=$ASCEND_HOME_PATH: there is no such folder; looking for CANN elsewhere."
  while IFS= read -r file; do
    if ! home="$(probe_cann "$file")"; then
      say "$file is broken: it leads to no folder of CANN. Reinstall that CANN, or remove it."
      continue
    fi
    version="$(cann_version "$home")"
    if [ -z "$CANN" ] || cann_row "$version" >/dev/null; then
      CANN="$home" CANN_VERSION="$version" CANN_SCRIPT="$file"
    fi
    ! cann_row "$version" >/dev/null || break # of several, the first that is new enough
  done < <(cann_scripts)
  [ -n "$CANN" ]
}

nnal_script() { # prints the set_env.sh of NNAL, if it is installed
  local root
  while IFS= read -r root; do
    if [ -f "$root/nnal/atb/set_env.sh" ]; then
      printf '%s\n' "$root/nnal/atb/set_env.sh"
      return 0
    fi
  done < <(printf '%s\n' "$CANN" "${CANN%/*}" "${CANN%/*/*}" && cann_roots)
}

driver_root() { # prints the folder that the driver is installed under
  local recorded
  recorded="$(sed -n 's/^Driver_Install_Path_Param=//p' "$SYSROOT/etc/ascend_install.info" 2>/dev/null | head -n 1)" || true
  printf '%s\n' "$SYSROOT${recorded:-/usr/local/Ascend}"
}

add_driver_libraries() { # in a container the linker does not know them, and not every set_env.sh adds them
  local folder root
  root="$(driver_root)"
  for folder in "$root"/driver/lib64 "$root"/driver/lib64/common "$root"/driver/lib64/driver; do
    case ":${LD_LIBRARY_PATH:-}:" in *:"$folder":* | *:"$folder"/:*) continue ;; esac
    [ ! -d "$folder" ] || export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"
  done
}

enter_cann() { # sets the environment of CANN and torch-npu, once; fails when there is no CANN
  local nnal="" name state="not installed"
  [ -z "$CANN" ] || return 0
  choose_cann || return 1
  for name in "${RECOMMENDED[@]}"; do
    if [ -z "$(printenv_of "${name%%=*}")" ]; then export "${name?}"; fi
  done
  [ -z "$CANN_SCRIPT" ] || eval "$(exports_of "$CANN_SCRIPT")"
  add_driver_libraries
  if [ ! -d "${ATB_HOME_PATH:-}" ]; then
    nnal="$(nnal_script)"
    # torch has the new C++ ABI from 2.7 on; the script would import torch to learn that.
    [ -z "$nnal" ] || eval "$(exports_of "$nnal" --cxx_abi=1)"
    [ -z "$nnal" ] || state="broken ($nnal)"
    [ -d "${ATB_HOME_PATH:-}" ] ||
      say "NNAL is $state; if libatb.so is missed, install Ascend-cann-nnal in CANN's version."
  fi
  say "CANN ${CANN_VERSION:-of unknown version} in $CANN${ATB_HOME_PATH:+, NNAL in $ATB_HOME_PATH}."
}

printenv_of() { printf '%s' "${!1-}"; }

say_devices() { # which NPUs show here; what to do when none does, or a helper of theirs is missing
  local devices file missing=""
  devices="$(npu_devices)"
  for file in davinci_manager devmm_svm hisi_hdc; do
    [ -e "$SYSROOT/dev/$file" ] || missing="$missing /dev/$file"
  done
  if [ -n "$devices" ] && [ -z "$missing" ]; then
    say "Ascend NPUs:$devices."
  elif in_container; then
    say "This container lacks${devices:+ a part of its NPUs:}$([ -n "$devices" ] || echo ' /dev/davinci0')$missing. Start it with
  --device=/dev/davinci0 --device=/dev/davinci_manager --device=/dev/devmm_svm --device=/dev/hisi_hdc
  -v /usr/local/Ascend/driver:/usr/local/Ascend/driver:ro"
  elif [ -n "$devices" ]; then
    say "Ascend NPUs:$devices, and yet there is no$missing: reinstall the driver, or look at npu-smi info."
  else
    say "No /dev/davinci0 or other NPU shows here: install the driver and firmware, or look at npu-smi info."
  fi
}

hidden_npu() { # a word when CANN is here and no NPU shows
  if [ -d "${ASCEND_HOME_PATH:-}" ] || [ -n "$(cann_scripts)" ]; then
    say "CANN is installed, and no NPU shows; torch for the CPU is used. For the NPU: --torch npu"
    say_devices
  fi
}

choose_pair() { # sets TORCH_NPU and NPU_PYTHON, what the table has for this CANN
  local version="${GIVEN_CANN:-$CANN_VERSION}" row cann rest
  [ -z "$TORCH_NPU" ] || return 0
  [ -n "$version" ] || die "the version of the CANN in $CANN cannot be read.
  Say it, as in: bash launch.sh --cann $(newest_cann)"
  row="$(cann_row "$version")" || die "CANN $version is too old: torch-npu for torch 2.7 and newer needs CANN $(oldest_cann).
  Upgrade it to CANN $(newest_cann) (toolkit, operator package of the chip, NNAL) and the driver
  with it; or run on the CPU with --torch cpu."
  # shellcheck disable=SC2034
  read -r cann NPU_PYTHON TORCH_NPU rest <<<"$row"
  [ "$(cann_number "$cann")" -eq "$(cann_number "$version")" ] ||
    say "CANN $version is not in the table of versions; it is treated as $cann."
}

require_cann() { # torch with torch-npu installed cannot even be imported without CANN
  enter_cann || die "torch for an Ascend NPU needs CANN, and none was found under ASCEND_HOME_PATH,
  /usr/local/Ascend or $HOME/Ascend. Install CANN $(newest_cann), or name its folder with
  ASCEND_HOME_PATH; or run on the CPU with --torch cpu."
}

prepare_npu() { # PYTHON: CANN and the pair for it, where the flavour has torch-npu
  local npu
  if [ "$FLAVOUR" = npu ]; then
    require_cann
    choose_pair
  elif [ "$FLAVOUR" = keep ] && npu="$(own_version "$1" torch-npu)" && [ -n "$npu" ]; then
    require_cann
    case " $(cann_row "$CANN_VERSION" || true) " in
      *" $npu "*) ;;
      *) say "torch-npu $npu is not one of those made for CANN ${CANN_VERSION:-of unknown version}; see $CANN_TABLE." ;;
    esac
  fi
}

minor() { # 3.11 becomes 11
  printf '%s\n' "${1#*.}"
}

python_version() { # prints 3.11 for the Python $1
  "$1" -I -S -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

python_for_npu() { # changes PYTHON where torch-npu has no files for the one found
  local version name path
  version="$(python_version "$PYTHON")"
  [ -n "$version" ] && [ "$(minor "$version")" -gt "$(minor "$NPU_PYTHON")" ] || return 0
  if [ -z "$GIVEN_PYTHON" ]; then
    for name in python3.12 python3.11; do
      path="$(command -v "$name" || true)"
      [ "$(minor "${name#python}")" -le "$(minor "$NPU_PYTHON")" ] || continue
      if [ -n "$path" ] && [ -z "$(why_unfit "$path")" ]; then
        PYTHON="$path"
        return
      fi
    done
  fi
  die "torch-npu $TORCH_NPU, the one for CANN ${GIVEN_CANN:-$CANN_VERSION}, is made for Python 3.11$([ "$NPU_PYTHON" = 3.11 ] ||
    echo " to $NPU_PYTHON"), and $PYTHON is $version.
  Name such a Python with --python PATH, or upgrade CANN to $(newest_cann)."
}

print_env() { # prints the commands that `source launch.sh env` runs; what the user set stays
  local before
  before="$(declare -x)"
  if ! enter_cann; then
    [ -z "$(npu_devices)" ] ||
      die "there is an Ascend NPU, and no CANN was found. Install CANN, or name its folder with ASCEND_HOME_PATH."
    say "There is no Ascend NPU and no CANN here: nothing needs to be set."
    return
  fi
  say_devices
  exports_since "$before"
}

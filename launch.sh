#!/usr/bin/env bash
# Installs what is missing and starts the page; see `bash launch.sh --help`.
# Written for bash 3.2 and newer (macOS has that one). Sourcing it only defines its functions;
# `source launch.sh env` sets the variables of an Ascend NPU in this shell and leaves nothing else.
if [ "${BASH_SOURCE[0]}" != "$0" ] && [ "${1-}" = env ]; then
  if INSTRUCTBLIP_ENV="$(bash "${BASH_SOURCE[0]}" env)"; then
    eval "$INSTRUCTBLIP_ENV"
    unset INSTRUCTBLIP_ENV
    return 0
  fi
  unset INSTRUCTBLIP_ENV
  return 1
fi
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
SYSROOT="${LAUNCH_SYSROOT:-}" # tests look for devices under a tree of their own
CPU_INDEX="https://download.pytorch.org/whl/cpu"

# shellcheck source=instructblip/cann.sh
source "$ROOT/instructblip/cann.sh"

usage() {
  cat <<'TEXT'
bash launch.sh [options]           install what is missing, then serve the page
bash launch.sh install             install what is missing, and no more
bash launch.sh infer ...           questions about pictures         (--img_path X --prompt Y)
bash launch.sh chat ...            chat in the terminal
bash launch.sh test [--strict] [pytest arguments]
                                   install the test tools, lint, run the tests
bash launch.sh passwd FILE NAME    make, change or (--remove) remove a login in a file for --auth-file
bash launch.sh convert | vicuna | doctor | eval ...
                                   weights and checks; each has its own --help
bash launch.sh wheelhouse DIR      download everything into DIR, for a server without internet
source launch.sh env               set the variables of CANN and torch-npu in this shell

Options for the page:
  --model NAME|FOLDER   the embedded model (default) or a folder with a checkpoint
  --device NAME         auto (default), cpu, cuda, mps, npu; npu:0,npu:1 spreads the layers
  --host ADDRESS        where to listen; 127.0.0.1 unless given
  --port NUMBER         7860 unless given
  --share               a public link through Gradio's tunnel, always with a login
  --auth-file FILE      ask for a login; the file of hashes that `passwd` makes
  --auth USER:PASS      ask for a login; everybody on this machine can read it in `ps`
  Everything else is passed on as well: `bash launch.sh --page-help` lists it.

Options for the installation:
  --python PATH         this Python (3.11 to 3.13); a torch that it has is used, not replaced
  --torch FLAVOUR       cpu, cuda, npu, or keep (the one of --python); found out unless given
  --cann VERSION        the CANN to choose torch-npu for, such as 9.0.0; found out unless given
  --venv DIR            where packages go; .venv beside launch.sh unless given
  --wheelhouse DIR      install from the files in DIR, without any network
  --help                this text

Environment: INSTRUCTBLIP_VENV (as --venv), INSTRUCTBLIP_TORCH_INDEX (package index for torch
alone), pip's own variables (PIP_INDEX_URL, PIP_FIND_LINKS, PIP_CERT, ...) and HTTPS_PROXY.
TEXT
}

say() { printf '%s\n' "$*" >&2; }
die() {
  printf 'launch.sh: %s\n' "$*" >&2
  exit 1
}

# --- what was asked for ---------------------------------------------------------------------

COMMAND=serve PYTHON="" FLAVOUR="" GIVEN_CANN="" WHEELHOUSE="" STRICT=0 PASS=()
VENV="${INSTRUCTBLIP_VENV:-$ROOT/.venv}"

absolute() { # a path from the caller's folder, made absolute; "~" is the shell's business
  case "$1" in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s\n' "$PWD/$1" ;;
  esac
}

own_option() { # NAME VALUE
  [ -n "$2" ] || die "$1 needs a value; see bash launch.sh --help"
  case "$1" in
    --python) PYTHON="$2" ;;
    --cann) GIVEN_CANN="$2" ;;
    --venv) VENV="$(absolute "$2")" ;;
    --wheelhouse) WHEELHOUSE="$(absolute "$2")" ;;
    --torch)
      case "$2" in
        cpu | cuda | npu | keep) FLAVOUR="$2" ;;
        *) die "--torch $2: choose cpu, cuda, npu or keep" ;;
      esac
      ;;
  esac
}

parse() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --python | --venv | --wheelhouse | --torch | --cann)
        own_option "$1" "${2-}"
        shift
        ;;
      --python=* | --venv=* | --wheelhouse=* | --torch=* | --cann=*) own_option "${1%%=*}" "${1#*=}" ;;
      -h | --help)
        if [ "$COMMAND" = serve ]; then
          usage
          exit 0
        fi
        PASS+=("$1")
        ;;
      --page-help) PASS+=(--help) ;;
      --strict) if [ "$COMMAND" = test ]; then STRICT=1; else PASS+=("$1"); fi ;;
      --)
        shift
        PASS+=("$@")
        return
        ;;
      serve | install | env | test | wheelhouse | infer | chat | eval | bench | convert | vicuna | doctor | passwd)
        if [ "$COMMAND" = serve ] && [ ${#PASS[@]} -eq 0 ]; then COMMAND="$1"; else PASS+=("$1"); fi
        ;;
      *)
        if [ "$COMMAND" = serve ] && [ ${#PASS[@]} -eq 0 ] && [ "${1#-}" = "$1" ]; then
          die "no command is called '$1'; see bash launch.sh --help"
        fi
        PASS+=("$1")
        ;;
    esac
    shift
  done
}

# --- a fit Python -----------------------------------------------------------------------------

why_unfit() { # prints why the Python $1 cannot be used; nothing when it can
  local answer
  answer="$("$1" -c '
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    print("is Python %d.%d; 3.11, 3.12 or 3.13 is needed" % sys.version_info[:2])
elif sys.maxsize < 2**32:
    print("is a 32-bit Python; torch needs 64 bits")
else:
    try:
        import ensurepip, venv
        print("fit")
    except ImportError:
        print("has no venv module; on Debian and Ubuntu: apt install python%d.%d-venv"
              % sys.version_info[:2])
' 2>/dev/null)" || answer="does not start"
  [ "$answer" = fit ] || printf '%s\n' "$answer"
}

find_python() { # sets PYTHON
  local name path reason report=""
  if [ -n "$PYTHON" ]; then
    path="$(command -v "$PYTHON" || true)"
    [ -n "$path" ] || die "--python $PYTHON: there is no such program"
    reason="$(why_unfit "$path")"
    [ -z "$reason" ] || die "--python $PYTHON $reason"
    PYTHON="$path"
    return
  fi
  for name in python3 python3.11 python3.12 python3.13 python; do
    path="$(command -v "$name" || true)"
    [ -n "$path" ] || continue
    reason="$(why_unfit "$path")"
    if [ -z "$reason" ]; then
      PYTHON="$path"
      return
    fi
    report="$report
  $path $reason"
  done
  die "no fit Python (3.11, 3.12 or 3.13) was found.${report:-
  There is none on PATH.}
Ways to get one:
  Debian 12, Ubuntu 24.04 and newer:  sudo apt install python3 python3-venv
  Fedora, openEuler and the like:     sudo dnf install python3.11
  macOS:                              brew install python@3.12
  conda, without root:                conda create -n chat python=3.11
Then: bash launch.sh --python /path/to/python"
}

# --- which torch ------------------------------------------------------------------------------

exists() { [ -e "$1" ]; }

detect_flavour() { # prints what this machine has
  if exists "$SYSROOT"/dev/davinci[0-9]*; then
    echo npu
  elif exists "$SYSROOT"/dev/nvidia[0-9]* || { [ -e "$SYSROOT/dev/dxg" ] && nvidia_works; }; then
    echo cuda
  elif nvidia_works; then
    echo cuda
  else
    echo cpu
  fi
}

nvidia_works() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; }

own_version() { # the version of package $2 that Python $1 has, if any
  "$1" -c "from importlib.metadata import version; print(version(\"$2\"))" 2>/dev/null || true
}

choose_flavour() { # sets FLAVOUR for a new installation
  local torch npu
  if [ "$FLAVOUR" = keep ] || { [ -z "$FLAVOUR" ] && [ -n "$GIVEN_PYTHON" ]; }; then
    torch="$(own_version "$PYTHON" torch)"
    npu="$(own_version "$PYTHON" torch-npu)"
    if [ -n "$torch" ]; then
      FLAVOUR=keep
      [ "$(cann_number "$torch" || echo 2007)" -ge 2007 ] || die "$PYTHON has torch $torch; 2.7 or newer is needed.
  Upgrade it there${npu:+ (and torch-npu $npu with it)}, or install one apart: --torch cpu, cuda or npu"
      say "torch $torch${npu:+ with torch-npu $npu} of $PYTHON is used as it is."
      if [ -z "$npu" ] && [ "$(detect_flavour)" = npu ]; then
        say "It has no torch-npu, so the NPU stays unused; --torch npu installs a pair that fits."
      fi
    elif [ "$FLAVOUR" = keep ]; then
      die "--torch keep: $PYTHON has no torch; name one that has with --python PATH"
    fi
  fi
  if [ -z "$FLAVOUR" ]; then
    FLAVOUR="$(detect_flavour)"
    [ "$FLAVOUR" != cpu ] || hidden_npu
  fi
  prepare_npu "$PYTHON"
  [ "$FLAVOUR" != npu ] || python_for_npu
}

# --- the virtual environment --------------------------------------------------------------------

fingerprint() { # of all that decides what is installed; $1: run or dev
  local files=("$ROOT/requirements.txt" "$ROOT/constraints-cpu.txt")
  [ "$FLAVOUR" != npu ] || files+=("$ROOT/requirements-npu.txt")
  [ "$1" != dev ] || files+=("$ROOT/requirements-dev.txt")
  printf '%s%s %s\n' "$FLAVOUR" "${TORCH_NPU:+-$TORCH_NPU}" "$(cat "${files[@]}" | cksum)"
}

stamped() { # the value of key $1 in the stamp
  sed -n "s/^$1=//p" "$VENV/.stamp" 2>/dev/null || true
}

venv_python_version() { python_version "$VENV/bin/python"; }

up_to_date() { # whether the environment is whole and current; $1: run or dev
  [ -f "$VENV/.stamp" ] && [ ! -e "$VENV/.installing" ] || return 1
  local was asked="$FLAVOUR"
  was="$(stamped flavour)"
  [ -z "$asked" ] || [ "$asked" = "$was" ] || return 1
  [ -z "$GIVEN_PYTHON" ] || [ "$(stamped given)" = "$GIVEN_PYTHON" ] || return 1
  [ "$(stamped version)" = "$(venv_python_version)" ] || return 1
  FLAVOUR="$was"
  prepare_npu "$VENV/bin/python"
  if [ "$(stamped "$1")" = "$(fingerprint "$1")" ]; then return 0; fi
  FLAVOUR="$asked"
  return 1
}

make_folder() {
  if ! mkdir -p "$VENV" 2>/dev/null || ! : 2>/dev/null >"$VENV/.launch"; then
    die "cannot write to $VENV (a read-only folder, or somebody else's).
  Put the packages elsewhere: bash launch.sh --venv DIR, or set INSTRUCTBLIP_VENV=DIR"
  fi
}

claim_venv() { # refuses a folder that launch.sh did not make
  if [ -d "$VENV" ] && [ ! -e "$VENV/.launch" ] && [ -n "$(ls -A "$VENV")" ]; then
    die "$VENV exists, and launch.sh did not make it.
  Move it away, or choose another folder: bash launch.sh --venv DIR"
  fi
  make_folder
}

take_lock() { # two installations into one folder would spoil it; released when this shell ends
  command -v flock >/dev/null 2>&1 || return 0
  exec 9>"$VENV/.launch"
  if ! flock -n 9; then
    say "Another launch.sh is installing into $VENV; waiting for it ..."
    flock 9
  fi
}

free_kib() { df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4 }'; }

check_disk() { # $1: what is needed, in MB
  local free
  free="$(free_kib "$VENV")"
  [ -n "$free" ] || return 0
  [ "$free" -ge $(($1 * 1024)) ] || die "the disk of $VENV has $((free / 1024)) MB free, and about $1 MB are needed.
  Make room, or put the packages on another disk with --venv DIR"
}

empty_venv() { find "$VENV" -mindepth 1 -maxdepth 1 ! -name .launch -exec rm -rf {} +; }

make_venv() {
  local site args=()
  [ "$FLAVOUR" != keep ] || args+=(--system-site-packages)
  "$PYTHON" -m venv ${args[@]+"${args[@]}"} "$VENV" >&2 ||
    die "$PYTHON could not make a virtual environment in $VENV (see above)"
  if [ "$FLAVOUR" = keep ]; then
    # When PYTHON is itself of a virtual environment, its packages are not the system's.
    site="$("$PYTHON" -c 'import sys, sysconfig
if sys.prefix != sys.base_prefix: print(sysconfig.get_paths()["purelib"])')"
    [ -z "$site" ] || printf '%s\n' "$site" >"$("$VENV/bin/python" -c \
      'import sysconfig; print(sysconfig.get_paths()["purelib"])')/zz_given_python.pth"
  fi
}

# --- pip ----------------------------------------------------------------------------------------

pip() { PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 "$VENV/bin/python" -m pip "$@"; }

own_indexes() { # whether the user told pip where to get packages
  [ -n "${PIP_INDEX_URL:-}${PIP_EXTRA_INDEX_URL:-}${PIP_FIND_LINKS:-}${PIP_NO_INDEX:-}" ] ||
    pip config list 2>/dev/null | grep -qE '(index-url|find-links|no-index)='
}

reachable() { # an answer within 4 seconds
  "$VENV/bin/python" - "$1" 2>/dev/null <<'PY'
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=4)
PY
}

torch_index() { # prints the index to take torch alone from; nothing: where all comes from
  if [ -n "$WHEELHOUSE" ]; then return; fi
  if [ -n "${INSTRUCTBLIP_TORCH_INDEX:-}" ]; then
    echo "$INSTRUCTBLIP_TORCH_INDEX"
  elif { [ "$FLAVOUR" = cpu ] || [ "$FLAVOUR" = npu ]; } && [ "$(uname -s)" = Linux ] && ! own_indexes && reachable "$CPU_INDEX/torch/"; then
    echo "$CPU_INDEX"
  fi
}

requirement_arguments() { # $1: run or dev; fills ARGS
  ARGS=(-r "$ROOT/requirements.txt")
  [ "$FLAVOUR" != npu ] || ARGS=(-r "$VENV/requirements-npu.txt")
  [ "$1" != dev ] || ARGS+=(-r "$ROOT/requirements-dev.txt")
  [ -z "$WHEELHOUSE" ] || ARGS+=(--no-index --find-links "$WHEELHOUSE")
}

write_constraints() { # the tested versions; torch's only where that torch is installed
  local npu
  case "$FLAVOUR" in
    cpu | cuda) cat "$ROOT/constraints-cpu.txt" ;;
    npu)
      grep -v '^torch==' "$ROOT/constraints-cpu.txt"
      printf 'torch==%s\ntorch-npu==%s\n' "${TORCH_NPU%.post*}" "$TORCH_NPU"
      # The file's own pair is for its reader's pip; here it is the one that fits the CANN found.
      sed -e "s|^-r |-r $ROOT/|" -e "s/^torch==[^ ]*/torch==${TORCH_NPU%.post*}/" \
        -e "s/^torch-npu==[^ ]*/torch-npu==$TORCH_NPU/" "$ROOT/requirements-npu.txt" >"$VENV/requirements-npu.txt"
      ;;
    keep)
      grep -v -E '^(torch|numpy)==' "$ROOT/constraints-cpu.txt"
      printf 'torch==%s\n' "$(own_version "$PYTHON" torch)"
      npu="$(own_version "$PYTHON" torch-npu)"
      [ -z "$npu" ] || printf 'torch-npu==%s\n' "$npu"
      ;;
  esac >"$VENV/constraints.txt"
}

announce() { # says what comes, before it comes
  local load disk
  case "$FLAVOUR" in
    cpu) load="0.4 GB" disk=2500 ;;
    cuda) load="3.5 GB" disk=9000 ;;
    npu) load="0.5 GB" disk=3500 ;;
    keep) load="0.2 GB" disk=1200 ;;
  esac
  check_disk "$disk"
  [ "$FLAVOUR" != npu ] || say "For CANN ${GIVEN_CANN:-$CANN_VERSION}: torch ${TORCH_NPU%.post*} with torch-npu $TORCH_NPU."
  if [ -n "$WHEELHOUSE" ]; then
    [ -d "$WHEELHOUSE" ] || die "--wheelhouse $WHEELHOUSE: there is no such folder"
    say "Installing from $WHEELHOUSE into $VENV (torch: $FLAVOUR); nothing is downloaded."
  else
    say "Installing into $VENV (torch: $FLAVOUR). To download: about $load; on disk: about $disk MB."
  fi
}

failed() { # pip failed: say what to do
  local log="$VENV/install.log"
  if grep -q 'No space left on device' "$log"; then
    die "the disk is full. Make room, use --venv DIR on another disk, or set TMPDIR to a folder with room."
  elif [ -n "$WHEELHOUSE" ]; then
    die "$WHEELHOUSE lacks a package, or holds it for another Python or processor (see above).
  Make it on a machine of the same kind: bash launch.sh wheelhouse DIR (this is $(uname -sm), Python $(venv_python_version))"
  elif grep -qE 'NewConnectionError|ConnectTimeout|ReadTimeout|Failed to establish|name resolution|ProxyError|SSLError|Network is unreachable|Connection(Reset|Refused| aborted| broken)|from versions: none' "$log"; then
    die "the packages could not be downloaded: no way to the package index (see above).
  Behind a proxy:     HTTPS_PROXY=http://proxy:port bash launch.sh
  With a mirror:      PIP_INDEX_URL=https://mirror/simple bash launch.sh
  Own certificate:    PIP_CERT=/path/to/ca.pem bash launch.sh
  Without internet:   bash launch.sh wheelhouse DIR on a connected machine, copy DIR here,
                      then bash launch.sh --wheelhouse DIR"
  fi
  die "the installation failed (see above; the whole log: $log). The next start tries again."
}

pip_install() { # as pip install, with the log kept for failed()
  pip install --log "$VENV/install.log" "$@" >&2
}

install_packages() { # $1: run or dev
  local index pin=() ARGS=()
  index="$(torch_index)"
  if [ -n "$index" ] && [ "$FLAVOUR" != keep ]; then
    pin=("$(grep '^torch==' "$VENV/constraints.txt")")
    pip_install --no-deps --index-url "$index" "${pin[@]}" ||
      say "torch did not come from $index; trying the usual package index."
  fi
  if [ "$FLAVOUR" = npu ] && [ -z "$index$WHEELHOUSE" ] && [ "$(uname -m)" = x86_64 ]; then
    say "torch comes from the usual index; its build for x86_64 may bring CUDA along, 3 GB more.
  INSTRUCTBLIP_TORCH_INDEX=URL takes torch alone from an index with builds for the CPU."
  fi
  requirement_arguments "$1"
  pip_install -c "$VENV/constraints.txt" "${ARGS[@]}" && return
  if grep -qE 'No matching distribution|ResolutionImpossible' "$VENV/install.log" &&
    ! grep -q 'from versions: none' "$VENV/install.log"; then
    say "The tested versions are not all to be had; trying the ranges of requirements.txt."
    grep -E '^torch(-npu)?==' "$VENV/constraints.txt" >"$VENV/constraints-loose.txt" || true
    pip_install -c "$VENV/constraints-loose.txt" "${ARGS[@]}" && return
  fi
  failed
}

write_stamp() { # last of all: its presence says that the environment is whole
  local run dev=""
  run="$(fingerprint run)"
  if [ "$1" = dev ] || [ -n "$(stamped dev)" ]; then dev="$(fingerprint dev)"; fi
  [ "$1" = dev ] || [ "$(stamped dev)" = "$dev" ] || dev=""
  printf 'flavour=%s\ngiven=%s\nversion=%s\nrun=%s\ndev=%s\n' \
    "$FLAVOUR" "$GIVEN_PYTHON" "$(venv_python_version)" "$run" "$dev" >"$VENV/.stamp.new"
  mv "$VENV/.stamp.new" "$VENV/.stamp"
}

reusable() { # whether an old environment may be brought up to date rather than made anew
  [ -f "$VENV/.stamp" ] && [ ! -e "$VENV/.installing" ] || return 1
  [ "$(stamped version)" = "$(venv_python_version)" ] || return 1
  [ -z "$GIVEN_PYTHON" ] || [ "$(stamped given)" = "$GIVEN_PYTHON" ] || return 1
  [ -z "$FLAVOUR" ] || [ "$(stamped flavour)" = "$FLAVOUR" ] || return 1
  # Another CANN wants another torch-npu, and that one perhaps an older Python.
  [ -z "$NPU_PYTHON" ] || [ "$(minor "$(stamped version)")" -le "$(minor "$NPU_PYTHON")" ]
}

prepare() { # $1: run or dev; brings the environment up to date
  local begun=$SECONDS
  up_to_date "$1" && return
  claim_venv
  take_lock
  up_to_date "$1" && return # another launch.sh made it meanwhile
  if reusable; then
    FLAVOUR="$(stamped flavour)" PYTHON="$VENV/bin/python"
    say "The requirements have changed; bringing $VENV up to date."
  else
    if [ -e "$VENV/pyvenv.cfg" ] || [ -e "$VENV/.installing" ]; then
      say "$VENV is not whole, or was made for something else; making it anew."
    fi
    find_python
    choose_flavour
    empty_venv
    : >"$VENV/.installing"
    make_venv
  fi
  : >"$VENV/.installing"
  announce
  : >"$VENV/install.log"
  write_constraints
  install_packages "$1"
  write_stamp "$1"
  rm -f "$VENV/.installing"
  exec 9>&-
  say "Installed in $((SECONDS - begun)) s."
}

# --- the commands -----------------------------------------------------------------------------

environment() { # nothing leaves the machine unless the user says so
  export GRADIO_ANALYTICS_ENABLED="${GRADIO_ANALYTICS_ENABLED:-False}"
  export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
  export HF_HUB_DISABLE_TELEMETRY="${HF_HUB_DISABLE_TELEMETRY:-1}"
  export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
  export PYTHONUNBUFFERED=1
  unset PYTHONHOME
}

run_module() { # MODULE ARGUMENTS: from the caller's folder, so that its relative paths hold
  environment
  exec "$VENV/bin/python" -P -m "$@"
}

other_hardware() { # a word when the machine has more than the environment was made for
  local has
  has="$(detect_flavour)"
  [ "$FLAVOUR" != cpu ] || [ "$has" = cpu ] ||
    say "This machine has hardware for torch '$has', $VENV is for cpu; change it with: bash launch.sh --torch $has"
}

test_packages() { # prints Debian packages that the tests want and the machine lacks
  command -v chromium >/dev/null 2>&1 || echo chromium
  [ -n "$(fc-list :lang=zh 2>/dev/null | head -n 1)" ] || echo fonts-noto-cjk
  command -v shellcheck >/dev/null 2>&1 || echo shellcheck
  command -v g++ >/dev/null 2>&1 || echo g++
}

install_test_packages() {
  local missing become=()
  missing="$(test_packages | tr '\n' ' ')"
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" -ne 0 ]; then become=(sudo -n); fi
  if command -v apt-get >/dev/null 2>&1 && ${become[@]+"${become[@]}"} true 2>/dev/null; then
    say "Installing $missing..."
    # shellcheck disable=SC2086
    if ${become[@]+"${become[@]}"} apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive \
      ${become[@]+"${become[@]}"} apt-get install -y -qq --no-install-recommends $missing >&2; then
      return 0
    fi
  fi
  say "Not here, and not installable by this user: $missing"
  say "Without chromium the browser tests are skipped (an error with --strict)."
  say "Without g++ the tests on a simulated NPU are skipped (an error with --strict)."
}

install_aside() { # LIST FOLDER MODULE SIZE TESTS: a package that only some tests see, in a folder of its own
  local pin name target args=()
  pin="$(grep '==' "$ROOT/$1")"
  name="${pin%%==*}" target="$VENV/$2/${pin%%==*}-${pin#*==}"
  [ ! -d "$target/$3" ] || return 0
  [ -z "$WHEELHOUSE" ] || args=(--no-index --find-links "$WHEELHOUSE")
  say "Installing $name ${pin#*==} for the tests on $5 ($4 to download) ..."
  rm -rf "$target.partial"
  if pip install --quiet --no-deps --target "$target.partial" ${args[@]+"${args[@]}"} "$pin" >&2 &&
    mv "$target.partial" "$target"; then
    return 0
  fi
  rm -rf "$target.partial"
  say "Without $name the tests on $5 are skipped (an error with --strict)."
}

step() { # TITLE COMMAND...: counts a failure and goes on
  say "== $1"
  shift
  "$@" >&2 || LINT_FAILED=1
}

lint() {
  local python="$VENV/bin/python"
  step "ruff check" "$python" -m ruff check .
  step "ruff format --check" "$python" -m ruff format --check .
  step "mypy" "$python" -m mypy
  if command -v shellcheck >/dev/null 2>&1; then
    step "shellcheck" shellcheck launch.sh instructblip/cann.sh .ci/run
  else
    say "== shellcheck is not here: left out"
  fi
}

test_workers() { # two halves where there are two cores; each file runs on one of them
  if [ "$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)" -gt 1 ]; then echo 2; else echo 0; fi
}

run_tests() {
  local status=0
  LINT_FAILED=0
  environment
  export PYTHONPATH="$ROOT" INSTRUCTBLIP_STRICT="$STRICT"
  cd "$ROOT"
  if [ ${#PASS[@]} -eq 0 ]; then
    lint
    PASS=(-n "$(test_workers)" --dist loadfile --no-loadscope-reorder)
  fi
  [ "$LINT_FAILED" -eq 0 ] || say "== a check above failed, so this run fails whatever the tests say"
  say "== pytest"
  "$VENV/bin/python" -m pytest ${PASS[@]+"${PASS[@]}"} || status=$?
  [ "$status" -ne 0 ] || status=$LINT_FAILED
  exit "$status"
}

pair_for_wheelhouse() { # the connected machine need not have the server's CANN
  if [ -z "$GIVEN_CANN" ] && ! choose_cann; then
    GIVEN_CANN="$(newest_cann)"
    say "There is no CANN here: torch-npu is taken for CANN $GIVEN_CANN; another one with --cann VERSION"
  fi
  choose_pair
  python_for_npu
}

make_wheelhouse() { # everything that an installation on such a machine needs
  [ ${#PASS[@]} -eq 1 ] || die "wheelhouse needs the folder to fill: bash launch.sh wheelhouse DIR"
  local target index ARGS=() begun=$SECONDS
  target="$(absolute "${PASS[0]}")"
  mkdir -p "$target" || die "cannot make $target"
  VENV="$(mktemp -d)"
  # shellcheck disable=SC2064
  trap "rm -rf '$VENV'" EXIT
  find_python
  [ -n "$FLAVOUR" ] || FLAVOUR="$(detect_flavour)"
  [ "$FLAVOUR" != npu ] || pair_for_wheelhouse
  make_venv
  write_constraints
  index="$(torch_index)"
  if [ -n "$index" ]; then
    pip download -d "$target" --no-deps --index-url "$index" \
      "$(grep '^torch==' "$VENV/constraints.txt")" >&2 || say "torch did not come from $index"
  fi
  requirement_arguments dev
  pip download -d "$target" --find-links "$target" -c "$VENV/constraints.txt" "${ARGS[@]}" >&2 ||
    die "the download failed (see above)"
  pip download -d "$target" --no-deps -r "$ROOT/requirements-npu-sim.txt" \
    -r "$ROOT/requirements-triton-sim.txt" >&2 ||
    say "torch-npu and Triton for some of the tests could not be downloaded; left out."
  say "$(du -sm "$target" | cut -f1) MB in $target after $((SECONDS - begun)) s, for $(uname -sm), Python $(venv_python_version), torch $FLAVOUR."
  say "On the server: bash launch.sh --wheelhouse DIR --torch $FLAVOUR"
}

main() {
  parse "$@"
  GIVEN_PYTHON=""
  [ -z "$PYTHON" ] || GIVEN_PYTHON="$(command -v "$PYTHON" || printf '%s' "$PYTHON")"
  case "$COMMAND" in
    wheelhouse) make_wheelhouse ;;
    env) print_env ;;
    install) prepare run ;;
    test)
      prepare dev
      install_test_packages
      install_aside requirements-npu-sim.txt npu-simulation torch_npu "44 MB" "a simulated NPU"
      install_aside requirements-triton-sim.txt triton-interpreter triton "188 MB" "Triton's interpreter"
      run_tests
      ;;
    passwd)
      prepare run
      run_module webui.passwd ${PASS[@]+"${PASS[@]}"}
      ;;
    *)
      prepare run
      other_hardware
      [ -z "$CANN" ] || say_devices
      if [ "$COMMAND" = serve ]; then
        run_module webui ${PASS[@]+"${PASS[@]}"}
      else
        run_module instructblip "$COMMAND" ${PASS[@]+"${PASS[@]}"}
      fi
      ;;
  esac
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then main "$@"; fi

#!/usr/bin/env bash
# Stands in for Python and pip in the tests of launch.sh: notes each call in $CALLS, answers what
# the files of $ANSWERS say, installs nothing.
printf '%s\n' "${0##*/} $*" >>"$CALLS"
name="${0##*/}"
answer() { # FILE DEFAULT: what a test wrote for this question
  if [ -e "$ANSWERS/$1" ]; then cat "$ANSWERS/$1"; else printf '%s\n' "$2"; fi
}
case "$*" in
  *ensurepip*) answer "fit-$name" fit ;;
  *'version("torch")'*) if [ -e "$ANSWERS/torch" ]; then cat "$ANSWERS/torch"; else exit 1; fi ;;
  *'version("torch-npu")'*) if [ -e "$ANSWERS/torch-npu" ]; then cat "$ANSWERS/torch-npu"; else exit 1; fi ;;
  *sys.base_prefix*) answer given-site "" ;;
  *purelib*) printf '%s\n' "${0%/bin/*}/site" ;;
  *version_info*) answer "version-$name" "$(answer version 3.11)" ;;
  '-m venv '*)
    for folder in "$@"; do :; done
    mkdir -p "$folder/bin" "$folder/site"
    cp "$0" "$folder/bin/python"
    : >"$folder/pyvenv.cfg"
    ;;
  '-m pip config list'*) answer pip-config "" ;;
  '-m pip install --log '*)
    while [ -e "$ANSWERS/pip-waits" ]; do sleep 0.05; done
    if [ -e "$ANSWERS/pip-fails" ]; then
      tee -a "$5" <"$ANSWERS/pip-fails" >&2 # $4 is --log
      exit 1
    fi
    ;;
  '-m pip install --quiet --no-deps --target '*)
    [ ! -e "$ANSWERS/pip-fails" ] || exit 1
    mkdir -p "$7/torch_npu" "$7/triton"
    ;;
  '-m pip download '*) [ ! -e "$ANSWERS/pip-fails" ] ;;
  '- '*) [ -e "$ANSWERS/reachable" ] ;;
  '-P -m '* | '-m pytest'* | '-m ruff'* | '-m mypy'*)
    {
      printf 'cann=%s seen=%s queue=%s\n' "${ASCEND_HOME_PATH:-}" "${SEEN:-}" "${TASK_QUEUE_ENABLE:-}"
      printf 'offline=%s strict=%s folder=%s\n' "${HF_HUB_OFFLINE:-}" "${INSTRUCTBLIP_STRICT:-}" "$PWD"
      printf '<%s>' "$@"
      printf '\n'
    } | tee -a "$ANSWERS/ran"
    ;;
  *) echo "fake python: unexpected: $*" >&2 && exit 99 ;;
esac

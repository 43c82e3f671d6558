#!/usr/bin/env bash
# From an empty folder to a scored report: corpus, n-gram, training, decoding, scoring.
#
#   recipes/run.sh [--conf recipes/conf/mini.yaml] [--stage N] [--stop-stage N] [options]
#
# Options (--name value or --name=value):
#   --conf FILE        the recipe (default: recipes/conf/mini.yaml)
#   --stage N          first stage to run (default: 0)
#   --stop-stage N     last stage to run (default: 8)
#   --systems "A B"    recognisers to train and decode (default: "whisper owsm nemo", those of
#                      them that the recipe names a config for)
#   --exp DIR          where everything goes (default: exp/<name of the recipe>)
#   --source DIR       the corpus' folder, in place of the recipe's
#   --nj N             parallel jobs for audio (default: all cores)
#   --train-opts "K=V ..."   overrides for every fine-tuning, such as train.max_steps=100
#   --decode-opts "K=V ..."  overrides for every decoding, such as decode.beams=10
#   --debug            the whole recipe on ten utterances and a few steps, in DIR-debug
#   --help             this text
#
# Stages: 0 corpus, 1 manifests, 2 n-gram, 3 train, 4 decode dev and test, 5 rescore and decode
# with the n-gram, 6 fuse (tuned on dev, applied to test), 7 score and report, 8 submission. What
# exists and is complete is skipped: delete it to redo it. Each step's log is DIR/logs/STEP.log.
# shellcheck disable=SC2317 # what `each` is told to call is reached
set -euo pipefail
{ # bash reads this block whole before it runs, so an edit during a long run can't change it

conf=recipes/conf/mini.yaml
stage=0
stop_stage=8
systems=
exp=
source=
nj=$(nproc 2>/dev/null || sysctl -n hw.ncpu)
train_opts=
decode_opts=
debug=false

cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
  echo "run.sh: $*" >&2
  exit 2
}

help() { sed -n '2,/^# shellcheck/{/^# shellcheck/!s/^# \{0,1\}//p}' recipes/run.sh; }

while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) help && exit 0 ;;
    --debug) debug=true && shift && continue ;;
    --*=*) name=${1%%=*} value=${1#*=} && shift ;;
    --*)
      [ $# -ge 2 ] || die "$1 needs a value (see --help)"
      name=$1 value=$2 && shift 2
      ;;
    *) die "unexpected argument '$1' (see --help)" ;;
  esac
  case $name in
    --conf | --stage | --stop-stage | --systems | --exp | --source | --nj | --train-opts | --decode-opts)
      name=${name#--}
      printf -v "${name//-/_}" %s "$value"
      ;;
    *) die "unknown option '$name' (see --help)" ;;
  esac
done
for name in stage stop_stage nj; do
  [[ ${!name} =~ ^[0-9]+$ ]] || die "--${name/_/-} is '${!name}', must be a whole number"
done
[ "$stage" -le "$stop_stage" ] || die "--stage is $stage, must be at most --stop-stage, $stop_stage"

recipes/setup.sh
export PATH="$PWD/.venv/bin:$PATH"
# Idle OpenMP threads spin by default, which slows training many times as soon as anything else
# runs on the machine.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
# Where nothing compiled may be kept, each step would compile a toolkit of thousands of modules.
unset PYTHONDONTWRITEBYTECODE

declare -A recipe
settings=$(python -m recipes.recipe "$conf")
while IFS='=' read -r key value; do recipe[$key]=$value; done <<<"$settings"
if [ -z "$systems" ]; then
  for name in whisper owsm nemo; do systems+="${recipe[$name]:+ $name}"; done
fi

exp=${exp:-exp/$(basename "$conf" .yaml)}
limit=()
if $debug; then
  exp=$exp-debug
  limit=(--limit 10)
  train_opts="train.max_steps=4 train.eval_steps=2 $train_opts"
fi
read -ra train_opts <<<"$train_opts"
read -ra decode_opts <<<"$decode_opts"
data=$exp/data
mkdir -p "$exp/logs"
[ ! -t 2 ] || export CHILDRENS_ASR_PROGRESS=1 # tqdm can't see the terminal behind tee

# is_complete NAME OUTPUT: true, and said, when OUTPUT exists.
is_complete() {
  [ -e "$2" ] || return 1
  echo "  $1: is complete ($2)"
}

# step NAME OUTPUT COMMAND...: run COMMAND unless OUTPUT exists; on failure show its log's tail.
step() {
  local name=$1 output=$2 log=$exp/logs/$1.log started=$SECONDS held
  ! is_complete "$name" "$output" || return 0
  shift 2
  exec {held}>>"$log" # what the step starts holds it too, and may outlive a killed run
  flock -n "$held" || [ $? -ne 1 ] || # another status: there are no locks here
    die "step $name is under way in another run (log: $log)"
  echo "  $name"
  if ! "$@" 2>&1 | tee "$log" >&2; then
    echo "run.sh: step $name failed; the end of $log:" >&2
    tr '\r' '\n' <"$log" | tail -n 20 >&2
    exit 1
  fi
  case $output in *.done) touch "$output" ;; esac # steps that only check leave a mark
  [ -e "$output" ] || die "step $name ended without $output (log: $log)"
  exec {held}>&-
  echo "  $name: done in $((SECONDS - started)) s"
}

# plan NAME OUTPUT MODULE ARGUMENTS...: run_planned is to call `python -m MODULE ARGUMENTS...` unless
# OUTPUT exists.
planned=()
plan() {
  ! is_complete "$1" "$2" || return 0
  planned+=(${planned[0]:+--then} "${@:3}")
  planned_last=$2
}

# run_planned NAME: do what is planned in one process, so that a toolkit is imported only once.
run_planned() {
  [ ${#planned[@]} -gt 0 ] || return 0
  step "$1" "$planned_last" python -m recipes.chain "${planned[@]}"
  planned=()
}

# each FUNCTION: FUNCTION SYSTEM for all systems, one after another or, if the recipe says so, side
# by side. The first failure, or Ctrl-C, ends them all.
running=()
each() {
  local system
  if [ "${recipe[side_by_side]}" != True ]; then
    for system in $systems; do "$1" "$system"; done
    return
  fi
  local threads=$(($(nproc 2>/dev/null || sysctl -n hw.ncpu) / $(wc -w <<<"$systems")))
  trap 'kill -- "${running[@]/#/-}" 2>/dev/null' EXIT
  set -m # each in a process group of its own, so that what it has started can be ended too
  for system in $systems; do
    (
      export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}
      "$1" "$system"
    ) </dev/null &
    running+=($!)
  done
  set +m
  for system in $systems; do wait -n || exit $?; done
  running=()
  trap - EXIT
}

# in_stage N TITLE: true when stage N is asked for.
in_stage() {
  [ "$stage" -le "$1" ] && [ "$1" -le "$stop_stage" ] || return 1
  echo "stage $1: $2"
}

if in_stage 0 "corpus ${recipe[corpus]}"; then
  source=${source:-${recipe[source]}}
  if [ -z "$source" ]; then
    source=$exp/corpus
  elif [ ! -d "$source" ]; then
    die "corpus folder '$source' does not exist; ${recipe[where]:-give it with --source}"
  fi
  echo "$source" >"$exp/source"
fi

train=$data/train.jsonl dev=$data/dev.jsonl test=$data/test.jsonl
if [ "${recipe[dev_share]}" != 0.0 ]; then
  train=$data/split/train.jsonl dev=$data/split/dev.jsonl
fi
lm=$exp/lm
base_train=$data/base/train.jsonl base_dev=$data/base/dev.jsonl
tune_train=$train
[ "${recipe[tune_on_base]}" != True ] || tune_train=$data/train_all.jsonl
[ "${recipe[read_aloud]}" != True ] || base_train=$data/pretrain.jsonl
tune_heard=$tune_train # the n-gram and the synthetic voices need each sentence only once
[ -z "${recipe[speed_perturb]}" ] || tune_heard=$data/perturbed.jsonl

if in_stage 1 "manifests"; then
  [ -s "$exp/source" ] || die "$exp/source does not exist, begin with stage 0"
  step prepare "$data/test.jsonl" python -m manifests.prepare \
    "${recipe[corpus]}" "$(cat "$exp/source")" --out "$data" --nj "$nj" "${limit[@]}" \
    --min-seconds "${recipe[min_seconds]}" --max-seconds "${recipe[max_seconds]}" --whole test
  if [ "$train" != "$data/train.jsonl" ]; then
    step split-dev "$dev" python -m manifests.split "$data/train.jsonl" --out "$data/split" \
      --dev "${recipe[dev_share]}" --by speaker --stratify age --seed "${recipe[seed]}"
  fi
  if [ -e "$data/${recipe[base_set]}.jsonl" ]; then
    step split-base "$base_dev" python -m manifests.split \
      "$data/${recipe[base_set]}.jsonl" --out "$data/base" --dev 0.1 --seed "${recipe[seed]}"
  fi
  if [ "$tune_train" != "$train" ]; then
    step join-train "$tune_train" python -m manifests.join "$train" "$data/base/train.jsonl" \
      --out "$tune_train"
  fi
  if [ "${recipe[read_aloud]}" = True ]; then
    # Of what is trained on alone: a sentence of dev or test must not be heard here.
    step read-aloud "$data/read_aloud.jsonl" python -m manifests.prepare read_aloud \
      "$tune_train" --out "$data" --nj "$nj" "${limit[@]}"
    step join-base "$base_train" python -m manifests.join "$data/read_aloud.jsonl" \
      "$data/base/train.jsonl" --out "$base_train"
  fi
  if [ "$tune_heard" != "$tune_train" ]; then
    read -ra factors <<<"${recipe[speed_perturb]}"
    step perturb "$tune_heard" python -m manifests.perturb "$tune_train" \
      --factors "${factors[@]}" --nj "$nj" --out "$tune_heard"
  fi
  step speakers "$data/speakers.done" python -m manifests.split --check "$train" "$dev" "$test"
  step validate "$data/validate.done" python -m manifests.validate --allow-empty-text \
    "$train" "$dev" "$test"
fi

causal=${recipe[causal_lm]}
[ "$causal" != tiny ] || causal=$exp/gpt2

if in_stage 2 "n-gram"; then
  text=()
  [ -z "${recipe[lm_text]}" ] || text=(--text "${recipe[lm_text]}")
  step lm "$lm/lm.json" python -m lm.train --manifest "$tune_train" "${text[@]}" --dev "$dev" \
    --order "${recipe[lm_order]}" --out "$lm"
  if [ "${recipe[causal_lm]}" = tiny ]; then
    step gpt2 "$causal" python -m recipes.tiny_gpt2 --text "$tune_train" "${text[@]:1}" \
      --dev "$dev" --seed "${recipe[seed]}" --out "$causal"
  fi
fi

# The checkpoint that fine-tuning starts from: the recipe's own tiny base, or the config's.
start_of() {
  [ -z "${recipe[$1_base]:-}" ] || echo "$exp/$1/base/final"
}

# train_system SYSTEM: its tiny base where the recipe has one, then the fine-tuning.
train_system() {
  local system=$1 start size normalized=()
  [ "${recipe[normalized]}" != True ] || normalized=(--normalized)
  start=$(start_of "$system")
  if [ -n "$start" ]; then
    read -ra size <<<"${recipe[${system}_size]}"
    plan "$system-init" "$exp/$system/init" "recipes.tiny_$system" \
      --text "$data/base/train.jsonl" "$train" "${normalized[@]}" --window "${recipe[window]}" \
      "${size[@]}" --seed "${recipe[seed]}" --out "$exp/$system/init"
    plan "$system-base" "$start" systems.train "$system" \
      --config "${recipe[${system}_base]}" --train "$base_train" --dev "$base_dev" \
      --exp "$exp/$system/base" "pretrained=$exp/$system/init" "${train_opts[@]}"
  fi
  plan "$system-tuned" "$exp/$system/tuned/final" systems.train "$system" \
    --config "${recipe[$system]}" --train "$tune_heard" --dev "$dev" \
    --exp "$exp/$system/tuned" ${start:+"pretrained=$start"} "${train_opts[@]}"
  run_planned "train-$system"
}

if in_stage 3 "train"; then
  for system in $systems; do
    [ -n "${recipe[$system]:-}" ] || die "$conf names no config for system '$system'"
  done
  each train_system
fi

# plan_decoding SYSTEM LABEL CHECKPOINT "SETS" [--lm LM]: hypotheses to EXP/hyp/SET/LABEL.jsonl
plan_decoding() {
  local system=$1 label=$2 checkpoint=$3 set output missing='' files=()
  for set in $4; do
    output=$exp/hyp/$set/$label.jsonl
    [ ! -e "$output" ] || continue
    missing=$output
    files+=(--manifest "${!set}" --out "$output")
  done
  shift 4
  plan "decode-$label" "${missing:-$output}" systems.decode "$system" \
    --config "${recipe[$system]}" ${checkpoint:+--checkpoint "$checkpoint"} \
    "${files[@]}" "$@" "${decode_opts[@]}"
}

# decode_system SYSTEM: test by its base, dev and test by what was fine-tuned.
decode_system() {
  plan_decoding "$1" "$1_base" "$(start_of "$1")" "test"
  plan_decoding "$1" "$1" "$exp/$1/tuned/final" "dev test"
  run_planned "decode-$1"
}

if in_stage 4 "decode"; then
  each decode_system
fi

# decode_with_lm SYSTEM: its n-best lists rescored, and a search that hears the n-gram.
decode_with_lm() {
  local system=$1 set output weights
  for set in dev test; do
    output=$exp/hyp/$set/${system}_rescored.jsonl
    step "rescore-$system-$set" "$output" python -m lm.rescore "$exp/hyp/$set/$system.jsonl" \
      --lm "$lm" --tune-on "$exp/hyp/dev/$system.jsonl" --ref "$dev" --out "$output"
  done
  # Unless the recipe says how, the search takes the weights that were best for rescoring dev.
  weights=${recipe[${system}_lm]}
  [ -n "$weights" ] || weights=$(python -c 'import json, sys
weights = json.load(open(sys.argv[1]))["weights"]
print("decode.alpha=%s decode.beta=%s" % (*weights["alphas"], weights["beta"]))' \
    "$exp/hyp/dev/${system}_rescored.weights.json")
  # shellcheck disable=SC2086  # several overrides
  plan_decoding "$system" "${system}_lm" "$exp/$system/tuned/final" "dev test" --lm "$lm" $weights
  run_planned "decode-${system}_lm"
}

if in_stage 5 "n-gram rescoring and fusion"; then
  each decode_with_lm
fi

# outdated OUTPUT INPUT...: remove OUTPUT when an input is newer, so that its step runs again.
outdated() {
  local output=$1 input
  shift
  for input in "$@"; do
    [ ! "$input" -nt "$output" ] || rm -f "$output"
  done
}

# blind SET: true when nothing says what was said in it.
blind() {
  [ -e "${!1}" ] || die "${!1} does not exist, begin with stage 1"
  ! grep -qm 1 '"text":' "${!1}"
}

fusion=$exp/fusion
if in_stage 6 "fuse"; then
  members=() heard=()
  for file in "$exp/hyp/dev"/*.jsonl; do # whatever both sets have, but for the fusion itself
    name=$(basename "$file")
    if [ "$name" != fused.jsonl ] && [ -e "$exp/hyp/test/$name" ]; then
      members+=("$file") heard+=("$exp/hyp/test/$name")
    fi
  done
  [ ${#members[@]} -gt 0 ] || die "no system has decoded both dev and test (stages 4 and 5)"
  mkdir -p "$fusion"
  if [ "${members[*]}" != "$(cat "$fusion/members" 2>/dev/null)" ]; then
    rm -f "$fusion/tuned.yaml"
    echo "${members[*]}" >"$fusion/members"
  fi
  outdated "$fusion/tuned.yaml" "${members[@]}"
  [ -e "$exp/hyp/dev/fused.jsonl" ] || rm -f "$fusion/tuned.yaml"
  lms=()
  [ ! -e "$lm/lm.json" ] || lms=("$lm")
  [ -z "$causal" ] || lms+=("$causal")
  [ ${#lms[@]} -eq 0 ] || lms=(--lm "${lms[@]}")
  step tune "$fusion/tuned.yaml" python -m fusion.tune "${members[@]}" --ref "$dev" "${lms[@]}" \
    --out "$fusion/tuned.yaml" --held-out "$exp/hyp/dev/fused.jsonl"
  outdated "$exp/hyp/test/fused.jsonl" "$fusion/tuned.yaml" "${heard[@]}"
  step fuse "$exp/hyp/test/fused.jsonl" python -m fusion.apply "$fusion/tuned.yaml" \
    --hyp "$exp/hyp/test" --manifest "$test" --out "$exp/hyp/test/fused.jsonl"
  judged=()
  blind test || judged=(--ref "$test" --hyp "$exp/hyp/test")
  outdated "$fusion/contribution.md" "$exp/hyp/test/fused.jsonl"
  step contribution "$fusion/contribution.md" python -m fusion.contribution "$fusion/tuned.yaml" \
    --dev-ref "$dev" --dev-hyp "$exp/hyp/dev" "${judged[@]}" --out "$fusion/contribution.md"
  echo "how it is fused and why: $fusion/tuned.md, $fusion/contribution.md"
fi

if in_stage 7 "score and report"; then
  for set in dev test; do
    blind "$set" && continue # there is nothing to score against
    hyps=("$exp/hyp/$set"/*.jsonl)
    outdated "$exp/score/$set/results.json" "${hyps[@]}"
    step "score-$set" "$exp/score/$set/results.json" python -m scoring.score --set "$set" \
      --ref "${!set}" --hyp "${hyps[@]}" --out "$exp/score/$set"
  done
  if ! blind test; then
    for system in $systems; do
      hyps=("$exp/hyp/test/${system}_base.jsonl" "$exp/hyp/test/$system.jsonl")
      outdated "$exp/score/compare-$system.done" "${hyps[@]}"
      step "compare-$system" "$exp/score/compare-$system.done" python -m scoring.compare \
        --ref "$test" --hyp "${hyps[@]}"
    done
    if [ -e "$fusion/contribution.json" ]; then
      # The best on test itself, which nobody can know beforehand: the hardest to beat.
      best=$(python -c 'import json, sys
members = json.load(open(sys.argv[1]))["oracle"]["members"]
print(min(members, key=members.get))' "$fusion/contribution.json")
      outdated "$exp/score/compare-fused.done" "$exp/hyp/test/fused.jsonl"
      echo "  $best, the best member on test, against the fusion:"
      step compare-fused "$exp/score/compare-fused.done" python -m scoring.compare --ref "$test" \
        --hyp "$exp/hyp/test/$best.jsonl" "$exp/hyp/test/fused.jsonl"
    fi
    echo "report: $exp/score/test/results.md"
  fi
fi

if in_stage 8 "submission"; then
  format=${recipe[submission_format]}
  if [ -z "$format" ]; then
    echo "  nothing to do: $conf names no submission_format"
  else
    [ "${format:0:1}" = / ] || format=$(cat "$exp/source")/$format
    only=()
    ! $debug || only=(--only "$test")
    outdated "$exp/submission.jsonl" "$exp/hyp/test/fused.jsonl" "$format"
    step submission "$exp/submission.jsonl" python -m recipes.submission \
      "$exp/hyp/test/fused.jsonl" --format "$format" --unheard "$data/test.quarantine.jsonl" \
      "${only[@]}" --out "$exp/submission.jsonl"
  fi
fi
exit 0
}

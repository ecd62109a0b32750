#!/bin/sh
# All that wants a GPU, in ten minutes: tests, the table of peers, the table of kinds.
#
#     [PEERS=FOLDER] [PYRO_VAE_DATA=FOLDER] sh benchmarks/gpu.sh [cuda | cpu]
#
# "cpu" only shows that it starts: the tests skip, and the tables are of one step, for nobody to keep.
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python}
PYTHONPATH=$PWD:$PYTHONPATH
export PYTHONPATH
if [ "${1:-cuda}" = cpu ]; then
    RESULTS=$(mktemp -d)
    export RESULTS
    timeout 120 "$python" -m pytest -q tests/test_gpu.py -k there || exit
    timeout 120 "$python" benchmarks/kinds.py --rounds 1 --steps 1 --only Bernoulli
    status=$?
    rm -r "$RESULTS"
    exit $status
fi
timeout 150 "$python" -m pytest -q tests/test_gpu.py
timeout 200 "$python" benchmarks/speed.py --device cuda --rounds 24 --data 20000
timeout 200 "$python" benchmarks/kinds.py --device cuda --rounds 10

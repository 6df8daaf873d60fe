# Sourced by the scripts here, in the repository's root: sets `python` to a Python with torch and transformers, in a virtual
# environment of its own under .cache/peers (about 5 GB the first time), or to the one that FLEDGE_PEERS_PYTHON names.
python=${FLEDGE_PEERS_PYTHON:-}
if [[ -z $python ]]; then
    venv=.cache/peers/venv
    if [[ ! -f $venv/ready ]]; then
        rm -rf "$venv"
        mkdir -p .cache/peers
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet torch==2.11.0 'transformers>=5,<6' numpy
        touch "$venv/ready"
    fi
    python=$venv/bin/python
fi

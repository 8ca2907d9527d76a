"""Whatever is typed as an override ends in a config or in an error of ours, and soon."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootflow.config.compose import open_composer
from rootflow.errors import ConfigError

KEYS = """
seed name model model.name model._target_ model.0 model.hidden optimizer optimizer.lr optimizer.betas task trainer
trainer.max_steps dataset.path tracking.wandb tracking.wandb.tags experiment sweeps defaults 0 a/b a.b-c model@task
model@ @model hydra hydra.verbose hydra.searchpath hydra.job.name hydra/launcher
"""
WORDS = r"""
mlp resnet adamw auto 1 -0 1e3 .5 1_0 nan -inf null true ??? é 漢 ${seed} ${name} ${oc.env:HOME} ${oc.env:NO} \${
${oc.decode:[} ${hydra:job} ${x: int( choice( range(1,3) interval(0,1) glob(*) sort( shuffle( tag(a, k= a: " ' \" \\
\ [ ] { } ( ) , = : @ ~ + / . .. - % * | & # ; < _ $
"""
NESTINGS = [
    ("[", "]"),
    ("[1,", "]"),
    ("{a:", "}"),
    ("{a:b,a:", "}"),
    ("int(", ")"),
    ("choice(", ")"),
    ("${a:[", "]}"),
]

words = st.sampled_from([*WORDS.split(), " ", "\t", "\n", "\0", "\x1b", "\ud800"])
pieces = st.lists(words, max_size=8).map("".join)
repeated = st.builds(lambda piece, times: piece * times, pieces, st.sampled_from([30, 300, 3_000, 30_000]))
nested = st.builds(
    lambda ends, inner, times: ends[0] * times + inner + ends[1] * times,
    st.sampled_from(NESTINGS),
    words,
    st.integers(1, 4_000),
)
values = st.one_of(pieces, pieces, pieces, st.text(max_size=20), repeated, nested)
signs = st.sampled_from(["", "", "", "+", "++", "~"])
of_real_keys = st.builds("{}{}={}".format, signs, st.sampled_from(KEYS.split()), values)
deletions = st.sampled_from(KEYS.split()).map("~{}".format)
overrides = st.one_of(
    of_real_keys, of_real_keys, deletions, st.builds("{}={}".format, pieces, pieces), values
)


def test_any_strings_are_a_config_or_an_error_of_ours_within_a_second_each(project: Path) -> None:
    with open_composer() as composer:
        # three at once, for it is the check of the whole config, once for all of them, that takes the time
        @settings(max_examples=1_000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(st.lists(overrides, min_size=3, max_size=3))
        def ends(typed: list[str]) -> None:
            started_s = time.process_time()
            with contextlib.suppress(ConfigError):
                composer.compose(typed)
            assert time.process_time() - started_s < len(typed)

        ends()

"""Python in pages of text: its blocks, in less time."""

import re

FEWER = {
    "sample(1000,": "sample(10,",
    "evidence(loans, table)": "evidence(loans, table, num_samples=50)",
    "assess(vae, x, steps=50)": "assess(vae, x[:10], steps=2, num_samples=50)",
    "steps=50": "steps=2",
    'x[:50], proposal="auto"': 'x[:2], proposal="auto"',
    'x[:20], proposal="auto"': 'x[:2], proposal="auto"',
    "bdmc(vae, 10": "bdmc(vae, 3",
    "measured = pv.compare_estimators(vae, x[:50], lines,": (  # the guide has it with them all
        "measured = pv.compare_estimators(vae, x[:50], lines[:1],"
    ),
    "data.train, seconds=60": "x, lines[:2], seconds=0.2",
    "seconds=60": "seconds=0.2",
    "x, seconds=20": "x, lines[:2], seconds=0.2",
    "num_draws=200": "num_draws=8",
    "num_draws=100": "num_draws=8",
    "num_samples=500": "num_samples=50",
    "num_samples=1000": "num_samples=50",
    "data.test, num_samples=200": "data.test[:20], num_samples=50",
    "after.vae}, x)": "after.vae}, x[:20], num_samples=50)",
    "compare(models, x)": "compare(models, x[:20], num_samples=50)",
    "temperatures=50": "temperatures=5",
    "temperatures=20": "temperatures=5",
    "chains=": "leapfrog=1, chains=",
    "=50, warmup=50": "=5, warmup=5",
    "data.train, lines": "data.train[:100], lines",
}


def python_blocks(text):
    """The blocks of Python, with fewer epochs and draws."""
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        for words, fewer in FEWER.items():
            block = block.replace(words, fewer)
        yield re.sub(r"epochs=\d+", "epochs=1", block)

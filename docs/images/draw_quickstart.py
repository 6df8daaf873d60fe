#!/usr/bin/env python3
"""Draws quickstart.svg from a run's folder: docs/images/draw_quickstart.py runs/quickstart > docs/images/quickstart.svg

Standard library only. The colours stand on a light page and on a dark one; there is no background.
"""

import json
import pathlib
import sys

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 530, 34, 256  # the curve's frame
BARS = (610, 690)
GREY, BLUE, ORANGE = "#808080", "#3b82d6", "#d9822b"


def main(folder):
    run = pathlib.Path(folder)
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((run / "summary.json").read_text())
    before, after = (summary["heldout_exact_match"][key] for key in ("before", "after"))
    last = steps[-1]["step"]

    def x(step):
        return LEFT + (RIGHT - LEFT) * step / last

    def y(share):
        return BOTTOM - (BOTTOM - TOP) * share

    out = []

    def text(left, base, words, anchor="middle", size=12, colour=GREY):
        out.append(f'<text x="{left:.1f}" y="{base:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">'
                   f"{words}</text>")

    for share in (0, 0.25, 0.5, 0.75, 1):
        out.append(f'<path d="M{LEFT} {y(share):.1f}H{RIGHT}M{BARS[0] - 40} {y(share):.1f}H{BARS[1] + 40}" stroke="{GREY}" '
                   f'stroke-opacity="{0.8 if share == 0 else 0.25}"/>')
        text(LEFT - 8, y(share) + 4, f"{share:g}", "end")
    for step in range(0, last + 1, max(1, last // 4)):
        text(x(step), BOTTOM + 18, step)
    text((LEFT + RIGHT) / 2, HEIGHT - 6, "step")

    rewards = [(row["step"], row["critic/score/mean"]) for row in steps if "critic/score/mean" in row]
    points = " ".join(f"{x(step):.1f},{y(score):.1f}" for step, score in rewards)
    out.append(f'<polyline points="{points}" fill="none" stroke="{BLUE}" stroke-width="2" stroke-linejoin="round"/>')
    held_out = [(0, before)] + [(row["step"], row["val/exact_match"]) for row in steps if "val/exact_match" in row]
    for step, rate in held_out + [(last, after)]:
        out.append(f'<circle cx="{x(step):.1f}" cy="{y(rate):.1f}" r="4.5" fill="{ORANGE}"/>')
    text(LEFT, 18, "mean reward of a step", "start", 13, BLUE)
    text(LEFT + 170, 18, "held-out exact match", "start", 13, ORANGE)

    for centre, rate, word in zip(BARS, (before, after), ("before", "after")):
        out.append(f'<rect x="{centre - 26}" y="{y(rate):.1f}" width="52" height="{BOTTOM - y(rate):.1f}" fill="{ORANGE}" '
                   f'fill-opacity="{0.55 if word == "before" else 1}"/>')
        text(centre, y(rate) - 7, f"{rate * 100:.1f} %", size=14, colour=ORANGE)
        text(centre, BOTTOM + 18, word)
    text(sum(BARS) / 2, HEIGHT - 6, "held out, greedy")

    title = f"Reward over {last} steps; held-out exact match {before * 100:.1f} % before, {after * 100:.1f} % after"
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
          f'font-family="system-ui, sans-serif" role="img" aria-label="{title}">\n<title>{title}</title>')
    print("\n".join(out))
    print("</svg>")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])

"""Assistant masks as transformers' return_assistant_tokens_mask makes them: golden templates with generation blocks,
golden tokenizers. Prints JSON Lines for Tests/ConversationsTests/Fixtures/masks.jsonl.

    python3 scripts/peers/assistant_masks.py ../shared/golden > Tests/ConversationsTests/Fixtures/masks.jsonl
"""

import json
import sys
from pathlib import Path

from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

CASES = {
    "multi_turn", "ends_with_assistant", "unicode", "spaces_and_newlines", "tool_call_answered", "reasoning_content_last",
    "markup_in_text", "two_rounds_of_tools",
}  # fmt: skip


def mask(encoding, spans):
    """The loop in transformers 5.23's apply_chat_template."""
    marks = [0] * len(encoding["input_ids"])
    for start, end in spans:
        first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
        if first is None:
            break
        for index in range(first, last + 1 if last else len(marks)):
            marks[index] = 1
    return marks


def runs(marks):
    """Where the mask turns on and off."""
    return [index for index, (now, before) in enumerate(zip(marks + [0], [0] + marks)) if now != before]


def main(golden):
    folder = golden / "chat_templates"
    templates = [path for path in sorted((folder / "templates").iterdir()) if "endgeneration" in path.read_text()]
    for name in ["qwen3", "smollm2", "mistral_v1", "unigram_small"]:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(golden / "tokenizers" / name / "tokenizer.json"))
        for template in templates:
            for line in (folder / "cases" / f"{template.stem}.jsonl").read_text().splitlines():
                case = json.loads(line)
                if case["name"] not in CASES or "error" in case:
                    continue
                if name != "qwen3" and case["name"] not in ("multi_turn", "unicode"):
                    continue
                kwargs = dict(case["kwargs"])
                texts, spans = render_jinja_template(
                    [case["messages"]], tools=case["tools"], chat_template=template.read_text(),
                    return_assistant_tokens_mask=True,
                    add_generation_prompt=kwargs.pop("add_generation_prompt", False), **kwargs)
                if texts[0] != case["rendered"]:
                    sys.exit(f"{template.stem}/{case['name']} is not rendered as in the golden file")
                marks = mask(tokenizer(texts[0], add_special_tokens=False), spans[0])
                print(json.dumps({
                    "tokenizer": name, "template": template.stem, "case": case["name"], "tokens": len(marks),
                    "runs": runs(marks)}))


main(Path(sys.argv[1]))

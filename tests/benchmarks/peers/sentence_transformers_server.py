"""sentence-transformers in a process of its own, in the environment that scripts/bench makes for it.

Arguments: the model's directory, the number of threads. Reads one JSON list of texts a line; answers with one JSON
line: the seconds that embedding each text alone took, by the clock and of the processor, those of all at once in
batches of eight, and the vectors of the former.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    directory, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    encoder = Transformer(directory, max_seq_length=256)
    model = SentenceTransformer(modules=[encoder, Pooling(384, "mean"), Normalize()], device="cpu")
    model.encode(["x"])
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        singly_s, processor_s, vectors = [], [], []
        for text in asked["singly"]:
            start, start_cpu = time.perf_counter(), time.process_time()
            vector = model.encode(text, show_progress_bar=False)
            processor_s.append(time.process_time() - start_cpu)
            singly_s.append(time.perf_counter() - start)
            vectors.append(vector.tolist())
        start = time.perf_counter()
        if asked["together"]:
            model.encode(asked["together"], batch_size=8, show_progress_bar=False)
        together_s = time.perf_counter() - start
        answer = {"singly_s": singly_s, "processor_s": processor_s, "vectors": vectors, "together_s": together_s}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

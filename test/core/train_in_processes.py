"""Run by torchrun from `test_training_processes.py`: a whole run and an interrupted one, compared.

Prints one JSON line from the first process.
"""

import hashlib
import json
import sys

import torch
import torch.distributed as dist
from builders import furniture
from test_training import tiny

from sparc_core.training.train import Trainer


def digest(trainer):
    """A hash of all parameters, averaged ones included."""
    found = hashlib.sha256()
    for values in (trainer.network.state_dict(), trainer.averaged):
        for value in values.values():
            found.update(value.numpy().tobytes())
    return found.hexdigest()


def main(checkpoint):
    torch.set_num_threads(1)
    whole, log = Trainer(tiny(), furniture()), []
    begun = {name: value.clone() for name, value in whole.network.named_parameters()}
    whole.run(log.append)
    unmoved = [name for name, value in whole.network.named_parameters() if torch.equal(value, begun[name])]
    boxes = []
    first = Trainer(tiny(), furniture())
    # asked on the first process alone: the other has to follow
    first.run(lambda metrics: None, stop=lambda: first.rank == 0 and first.step >= 3,
              save=lambda state: torch.save(state, checkpoint))  # fmt: skip
    dist.barrier()
    second = Trainer(tiny(), furniture())
    second.load_state(torch.load(checkpoint, weights_only=True))
    draws = torch.rand(1, generator=second.generator.clone_state())
    second.run(lambda metrics: None)
    boxes = [torch.zeros(1) for _ in range(second.processes)]
    dist.all_gather(boxes, draws)
    digests = [None] * second.processes
    dist.all_gather_object(digests, [digest(t) for t in (whole, first, second)])
    if second.rank == 0:
        print(json.dumps({
            "processes": second.processes, "digests": digests, "steps": [whole.step, first.step, second.step],
            "reports": len(log), "draws": [float(b) for b in boxes],
            "unmoved": unmoved,
        }))  # fmt: skip
    second.leave()


if __name__ == "__main__":
    main(sys.argv[1])

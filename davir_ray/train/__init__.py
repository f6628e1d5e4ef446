"""Core-set -> model: SFT, DPO and DavIR-DPO with TRL and DeepSpeed on Ray Train. In the order of the data:

pick.py          which rows are trained on: the core-set, a sample, all but a fold
rows.py          their token ids, as they were measured, with the frozen log-probabilities of pairs
ray_rows.py      the Ray stage that writes these rows
checks.py        what cannot work, told before workers start
ray_fit.py       the Ray Train run, and its progress
worker.py        what each worker does
dataset.py       the rows, as TRL takes them
arguments.py     the recipe in TRL's words; deepspeed.py: in DeepSpeed's
trainers.py      TRL's trainers and the two seams where ours go in; losses.py: DavIR-DPO
callbacks.py     checkpoints and metrics while training
model_folder.py  the result, as a normal model folder
"""

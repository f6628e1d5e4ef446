"""Core-set -> model: SFT, DPO and DavIR-DPO with TRL and DeepSpeed on Ray Train. In the order of the data:

steps.py          the steps of the main job that train: the reference, the model
stage.py          one training; sources.py: on what; checks.py: what cannot work, told before workers start
pick.py           which rows are trained on: the core-set, a sample, all but a fold
rows.py           their token ids, as they were measured, with the frozen log-probabilities of pairs
ray_rows.py       the Ray stage that writes these rows
ray_fit.py        the Ray Train run, and its progress; ray_worker.py: what each worker does
dataset.py        the rows, as TRL takes them
arguments.py      the recipe in TRL's words; deepspeed.py: in DeepSpeed's
trainers.py       TRL's trainers and the two seams where ours go in; losses.py: DavIR-DPO
ray_callbacks.py  checkpoints and metrics while training; training_status.py reads them
model_folder.py   the result, as a normal model folder
"""

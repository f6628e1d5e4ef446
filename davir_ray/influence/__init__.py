"""How far a gradient step on a row moves a target (LESS, ROSE). Plain torch; Ray is elsewhere.

target.py      the target's rows, by subtask
moments.py     the optimiser's moments beside a warm-up checkpoint
checkpoint.py  what a checkpoint must be, told from its files
adapted.py     a model whose LoRA layers can be watched
gradients.py   the gradient of each row of a batch, from one forward and one backward pass
directions.py  where the target's gradients point, and how far a row's step goes there
kinds.py       the kinds of measurement `rose`, `less` and `gradient_cosine`
projection.py  gradients projected to a few thousand numbers by random signs
projector.py   steps on rows, and a target's gradients, as projections
projected.py   the kind of measurement `projected_step`, and how what is stored lies to a target
"""

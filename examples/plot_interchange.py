# SPDX-License-Identifier: BSD-3-Clause
"""
===============================
An interchange intervention
===============================

Which directions of a layer carry a concept? Swap them between two runs of the network: if the answer changes as it
would had the concept itself been swapped, these are the ones. Distributed alignment search (Geiger et al., 2024) learns
a subspace of a size that you fix; the projective form lets each concept choose atoms of a dictionary, and pays for
every dimension.
"""

# %%
# A network that learned whether "w = x" and "y = z" are both true or both false. The two equalities are the concepts.
import matplotlib.pyplot as plt

from skprojdict.alignment import DistributedAlignmentSearch, ProjectiveAlignmentSearch
from skprojdict.alignment.tasks import EqualityTask
from skprojdict.plotting import InterventionDisplay, TrainingCurveDisplay

task = EqualityTask(n_steps=1500, random_state=0)
print(f"accuracy of the network: {task.accuracy:.3f}")
train, test = task.interchanges(4000, random_state=1), task.interchanges(2000, random_state=2)

# %%
options = {"max_steps": 250, "random_state": 0}
searches = {
    "DAS, k = 1": DistributedAlignmentSearch(task.model, n_directions=1, **options),
    "DAS, k = 4": DistributedAlignmentSearch(task.model, n_directions=4, **options),
    "projective": ProjectiveAlignmentSearch(task.model, **options),
}
for search in searches.values():
    search.fit(train.base, train.source, train.labels, train.concepts)

# %%
# Full markers swap whole dimensions; empty ones the soft projections that training saw, which flatter. The dotted line
# is what swapping nothing, or everything, achieves already.
figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
InterventionDisplay.from_estimators(
    list(searches.values()), test.base, test.source, test.labels, test.concepts, names=list(searches), ax=axes[0]
)
axes[0].set_title("Interchanges that training did not see")
axes[0].legend(fontsize=8)
for name, search in searches.items():
    TrainingCurveDisplay.from_estimator(search, metric="accuracy", name=name, ax=axes[1])
plt.show()

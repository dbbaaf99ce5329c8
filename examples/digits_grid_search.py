"""Find a good support vector machine for handwritten digits: one call for each setting, spread over the mesh.

The data is scikit-learn's own: 1,797 real images of 8 × 8 pixels.
"""

import itertools

import potluck

app = potluck.App("digits", image=potluck.Image.local_python().pip_install("scikit-learn==1.9.1"))

KERNELS = ("rbf", "poly")
COSTS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
GAMMAS = (0.00001, 0.0001, 0.0005, 0.001, 0.01, 0.1)


@app.function(cpu=1, memory=512, timeout=120)
def accuracy(kernel: str, cost: float, gamma: float) -> float:
    """Mean accuracy over five folds."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVC

    images, digits = load_digits(return_X_y=True)
    scores = cross_val_score(SVC(kernel=kernel, C=cost, gamma=gamma), images, digits, cv=5)
    print(f"{kernel:5} C={cost:<7g} gamma={gamma:<7g} {scores.mean():.4f}")
    return float(scores.mean())


@app.local_entrypoint()
def main(best: int = 5) -> None:
    """Try every combination and print the best ones."""
    settings = list(itertools.product(KERNELS, COSTS, GAMMAS))
    scores = list(accuracy.starmap(settings))
    ranked = sorted(zip(scores, settings, strict=True), reverse=True)
    print(f"\n{len(settings)} settings tried; the best {best}:\n")
    print("accuracy  kernel  C        gamma")
    for score, (kernel, cost, gamma) in ranked[:best]:
        print(f"{score:.4f}    {kernel:6}  {cost:<7g}  {gamma:g}")

import numpy as np

from foretaste.cleansers.confusion_training.mixture import posterior_log_odds


def everything(n: int) -> np.ndarray:
    return np.ones(n, dtype=np.bool_)


def two_groups(n_poison: int = 40, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    poison = np.arange(n) < n_poison
    return rng.normal(0, 0.3, (n, 2)) + np.where(poison[:, None], 2.0, 0.0), poison


def test_a_few_seeds_find_the_whole_group() -> None:
    scores, poison = two_groups()
    seeds = np.arange(400) < 5
    odds = posterior_log_odds(scores, seeds, poison, everything(400))
    assert ((odds > 0) == poison).all()


def test_a_seed_may_be_wrong() -> None:
    scores, poison = two_groups()
    seeds = (np.arange(400) < 10) | (np.arange(400) == 399)
    odds = posterior_log_odds(scores, seeds, poison, everything(400))
    assert odds[399] < 0


def test_what_agrees_with_the_base_model_needs_clearer_scores() -> None:
    scores, poison = two_groups()
    between = np.vstack([scores, [[1.1, 1.1], [1.1, 1.1]]])
    disagree = np.append(poison, [True, False])
    odds = posterior_log_odds(between, np.append(poison, [False, False]), disagree, everything(402))
    assert odds[400] > odds[401]


def test_the_far_side_of_the_clean_samples_is_no_poison() -> None:
    rng = np.random.default_rng(0)
    # Poison that spreads wide around clean samples that hardly do.
    scores = np.concatenate([rng.normal(2, 2, (60, 1)), rng.normal(0, 0.1, (340, 1)), [[-3.0]]])
    odds = posterior_log_odds(scores, np.arange(401) < 60, np.arange(401) < 60, everything(401))
    assert odds[400] == -np.inf
    assert odds[:60][scores[:60, 0] > 2].min() > 0


def test_poison_further_out_than_the_rest_of_it_is_poison_all_the_same() -> None:
    rng = np.random.default_rng(0)
    # Four of the poison are far from the clean samples and from the other poison.
    scores = np.concatenate([rng.normal(28, 1, (60, 2)), [[18.0, 18.0]] * 4, rng.normal(0, 0.4, (330, 2))])
    seeds = np.arange(394) < 60
    odds = posterior_log_odds(scores, seeds, seeds, everything(394))
    assert np.flatnonzero(odds > 0).tolist() == list(range(64))


def test_one_seed_is_enough_to_go_on() -> None:
    scores, poison = two_groups(1)
    odds = posterior_log_odds(scores, poison, poison, everything(400))
    assert np.flatnonzero(odds > 0).tolist() == [0]


def test_what_cannot_be_poison_shows_how_the_rest_scores() -> None:
    """Of 160 samples that disagree with the base model 150 are poison, which one view learnt in two of three folds."""
    rng = np.random.default_rng(0)
    poison, disagree = np.arange(1500) < 150, np.arange(1500) < 160
    learnt = poison & (np.arange(1500) % 3 > 0)
    scores = rng.normal(0, 0.4, (1500, 3)) - 0.8
    scores[poison] += [1.6, 1.0, 0.3]
    scores[learnt, 0] += 1.5
    odds = posterior_log_odds(scores, learnt, disagree, disagree)
    assert ((odds > 0) == poison).all()
    assert (odds[~disagree] == -np.inf).all()
    # So few others would be taken for the narrow one of two kinds of poison.
    alone = posterior_log_odds(scores[:160], learnt[:160], disagree[:160], disagree[:160])
    assert np.count_nonzero(alone > 0) < 120

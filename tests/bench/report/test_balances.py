"""What a table says where a balance weighed the rate, and nowhere else."""

from tests.bench.report.conftest import Results

PLAIN = {"neg_log_p": 1.0, "neg_log_p_fitted_sigma": 0.9, "beta_effective": 0.1}


def test_a_table_has_the_weight_and_its_beta_where_a_balance_has_one(results: Results) -> None:
    results.add("shared", metrics=PLAIN)
    assert not {"beta_effective", "neg_log_p_fitted_sigma"} & set(results.table().metrics)
    results.add("gaussian", metrics={**PLAIN, "balance_weight": 0.05})
    table = results.table()
    assert {"beta_effective", "balance_weight", "neg_log_p_fitted_sigma"} <= set(table.metrics)
    assert any(sentence.startswith("weight of the rate: ") for sentence in table.caption)
    assert any(sentence.startswith("effective β: ") for sentence in table.caption)

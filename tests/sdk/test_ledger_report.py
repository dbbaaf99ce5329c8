"""What `potluck ledger report --by gpu` says below its table."""

from tests.ledger.test_audit import ANN, BOB, CY, DEE, used

from potluck.cli.ledger_report import tell_outliers


def test_who_bills_more_than_others_is_named_and_each_lease_counts_once(capsys):
    label = "a.f\x1b[2J"
    fair = [used(ANN, each, 10, label=label).receipt for each in (BOB, CY)]
    dear = used(ANN, DEE, 50, label=label).receipt
    tell_outliers([(each, True) for each in (*fair, dear, dear)])
    said = capsys.readouterr().out
    assert said.startswith(f"outlier: {DEE.peer} bills 5.000 s for an input of a.f")
    assert said.count("\n") == 1
    assert "\x1b" not in said


def test_what_one_side_signed_names_nobody(capsys):
    fair, dear = [used(ANN, each, 10).receipt for each in (BOB, CY)], used(ANN, DEE, 50).receipt
    tell_outliers([*((each, True) for each in fair), (dear, False)])
    assert capsys.readouterr().out == ""

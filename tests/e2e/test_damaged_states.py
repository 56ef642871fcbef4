"""A tenth of benchmarks/fuzz_states.py: states damaged in every way, given to the real server."""

from stepwise.benchmarks.fuzz_states import KINDS, fuzz


def test_damaged_states_end_in_clear_errors_and_the_server_goes_on(server, note):
    refused = fuzz(server, 33)
    assert set(refused) == {kind.__name__ for kind in KINDS}
    assert not server.complaints()
    note(f"{refused.total()} damaged states refused by the server, each with the name of node and input")

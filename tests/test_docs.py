"""Pages made from the code are the code's."""

from docs.commands import PAGE, page


def test_the_page_of_commands_is_what_help_prints():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"

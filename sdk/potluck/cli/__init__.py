"""The `potluck` command."""

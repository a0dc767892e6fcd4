"""What a person runs: the command `camboxes`, and the jobs that it assembles from the transforms."""

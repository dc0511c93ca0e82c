"""One archive that installs the stack on a host without a network; decision record 0023 says how."""

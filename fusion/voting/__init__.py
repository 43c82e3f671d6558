"""ROVER without times: everyone's words in one network, whatever the order of the members."""

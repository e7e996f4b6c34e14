"""The same cluster made of real vLLM servers, behind the policy protocols of `sim.policies`.

This release holds the package's place only: it has no testbed yet, and a spec that asks for one
(``--glia-testbed gpu``) is skipped with that reason.
"""

"""The same cluster made of real vLLM servers, behind the policy protocols of `sim.policies`.

`referee` compares the simulator's engine with vLLM's own scheduler, step by step; `vllm_scheduler` runs
a batch scheduler on vLLM, and `step_log` logs what its steps cost. vLLM is imported when one of them is
used: see `installed`. There is no testbed yet, and a spec that asks for one (``--glia-testbed gpu``) is
skipped with that reason.
"""

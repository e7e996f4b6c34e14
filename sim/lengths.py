"""Quantile tables of the lengths of prompts and outputs, in tokens, and where they come from.

The tables are marginal quantiles of the lengths of the Glia paper (arXiv 2510.27176): ShareGPT conversations,
first user turn and first reply, in Llama-3 tokens, each at most 4,096; 5 % of the prompts and, independently,
5 % of the outputs are up to 10 times as long; 42 prompt tokens of system prompt on top. Computed from the
3,973 rows of `sharegpt_inflated_12qps_300s.csv` in github.com/pouyahmdn/vidur (MIT). Mean prompt 295, mean
output 362; their logarithms are hardly correlated (0.02), so the two are drawn independently.
"""

from __future__ import annotations

__all__ = ["LEVELS", "SHAREGPT_OUTPUT", "SHAREGPT_PROMPT"]

# fmt: off
# 0, then every 2 % to 90 %, every 0.5 % to 98 %, every 0.1 % to 100 %, and four points in the lower tail.
LEVELS = (
    0.0, 0.001, 0.0025, 0.005, 0.01,
    *(level / 100 for level in range(2, 90, 2)),
    *(level / 1000 for level in range(900, 980, 5)),
    *(level / 1000 for level in range(980, 1001)),
)
SHAREGPT_PROMPT = (
    43, 43, 43, 43, 43, 44, 46, 48, 49, 50, 50, 51, 52, 53, 54, 54, 55, 56, 57, 58, 59, 60, 61, 63, 64,
    66, 68, 71, 73, 76, 80, 85, 90, 96, 105, 112, 119, 129, 143, 157, 177, 201, 227, 262, 307, 365, 437,
    517, 643, 834, 877, 921, 965, 1022, 1070, 1117, 1163, 1232, 1303, 1392, 1496, 1603, 1766, 1897, 2109,
    2395, 2450, 2531, 2662, 2768, 2845, 2895, 2970, 3024, 3106, 3195, 3296, 3407, 3572, 3636, 3709, 3757,
    3821, 3900, 3992, 4134,
)
SHAREGPT_OUTPUT = (
    1, 1, 1, 2, 3, 9, 13, 22, 27, 35, 44, 58, 68, 80, 91, 100, 112, 125, 134, 144, 156, 167, 178, 186,
    197, 206, 216, 224, 234, 243, 254, 266, 275, 286, 296, 306, 315, 327, 338, 356, 372, 387, 401, 423,
    443, 471, 497, 529, 575, 628, 640, 660, 675, 698, 729, 747, 765, 767, 768, 769, 770, 792, 1399, 1860,
    2234, 2646, 2705, 2805, 2990, 3040, 3104, 3154, 3290, 3417, 3660, 3929, 4096, 4096, 4096, 4096, 4096,
    4096, 4096, 4096, 4096, 4096,
)
# fmt: on

"""Timings against plain baselines, each written as a competent reader of the paper would write it."""

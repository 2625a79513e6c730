"""What the routes look like in every figure."""

# Okabe and Ito, "Color Universal Design" (2008): told apart with every common colour blindness.
COLOURS = {"direct": "#0072B2", "surrogate": "#D55E00", "hybrid": "#009E73"}
LINES = {"direct": "-", "surrogate": "--", "hybrid": "-."}

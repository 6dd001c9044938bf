"""Physics performance: truth matching, efficiencies, residuals and pulls, figures."""

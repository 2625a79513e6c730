"""The groups of settings, as a package: so a project of one's own finds them in an installed aimback."""

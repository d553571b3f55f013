"""Foreign files: archives, label maps, palettes and weight files; downloads; the cache."""

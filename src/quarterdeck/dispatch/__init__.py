"""Who runs what, and when.

A dispatcher only gives hints: it claims what is ready and hands it to the engine. It may deliver twice, late, or after a pause
without harm, because safety comes from the journal's guards; its own promise is liveness: whatever is ready or due is claimed
while a worker lives. Beside claiming it gives whoever waits here the occasion to look at what others drive.
"""

"""Is a data set learned or memorised: the experiments of Arpit et al. 2017 on any labelled data.

Source: Arpit et al., "A Closer Look at Memorization in Deep Networks", ICML 2017. Start with
`profile.profile_memorization`; nothing here writes files.
"""

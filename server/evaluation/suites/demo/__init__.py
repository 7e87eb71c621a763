"""The demo world through a running server: is every form of a question forgotten, and only of whom it should be?"""

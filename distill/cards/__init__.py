"""Cards that travel with data and models: documents as markdown, the data card, the model card.

Apart from reporting, since stages that write a card depend on it and an edit of a report must not re-train.
"""

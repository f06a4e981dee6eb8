"""Problems as tokens: how they are written, where they lie, and how they are drawn."""

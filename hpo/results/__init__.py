"""What comes after the search: finalists, the winner, its retrain, the artifact."""

"""What measures: costs on a pretended GPU, pictures by a classifier, the rooms of the tree."""

"""What cleansers share: a classifier trained on the inspected set, what linear models see of images, conclusions."""

"""`perceiverd tag --ray`: files and buckets through many workers, on one machine or a cluster. Import the modules."""

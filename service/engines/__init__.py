"""What runs the app beyond one process: worker processes of a machine, and replicas on a Ray cluster.

Ray is imported in this room and in ``service.batch.cluster`` alone.
"""

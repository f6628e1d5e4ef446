class InfluenceKind:
    pass

"""conf/ becomes params.yaml, checked."""

from aimback.workflow.compose import main

if __name__ == "__main__":
    main()

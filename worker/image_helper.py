"""`python -m worker.image_helper JOB FENCE SCRATCH`: make parts of the images of a job that another
process is in charge of (store.jobs.parts)."""

from host.loading import loading

with loading():
    import structlog

    from store.jobs import claims, parts
    from store.jobs.configs import SampleJobConfig
    from store.jobs.kinds import JOB_KINDS
    from worker.image_parts import ImageMaker, load_model
    from worker.job_process import JobProcess, main

log = structlog.get_logger("helper")


class ImageHelper(JobProcess):
    in_charge = False

    def work(self) -> bool:
        """Return True where there may be more to help with later."""
        order = parts.get_order(self.database, self.job_id)
        if order is None:  # the job was deleted
            return True
        config = SampleJobConfig.from_dict(order.config)
        model = load_model(self, config)
        if config.deterministic and model.computed_by != order.computed_by:
            log.info("the images would differ in their last bits", computed_by=model.computed_by)
            return False
        maker, made = ImageMaker(self, config, model), 0
        for part in maker.parts():
            for images in maker.make(part):
                made += len(images)
            if claims.is_one_queued(self.database, JOB_KINDS["sample"].pool):
                break  # whoever waits for a worker comes first
        log.info("helped", images=made)
        return not self.stop.is_set()


if __name__ == "__main__":
    main(ImageHelper)
